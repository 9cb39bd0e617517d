"""The gate: has anything fallen below its baseline?"""
