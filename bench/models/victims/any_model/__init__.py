"""Any vision-language model that transformers loads by `AutoModelForImageTextToText`, attacked in the user's pixels."""
