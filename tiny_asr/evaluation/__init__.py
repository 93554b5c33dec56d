"""How good is it? The word error rate with what an honest report of it needs."""
