"""What is asked of a model, how an attacker breaks it, and how an answer is scored."""
