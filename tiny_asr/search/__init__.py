"""How a text is looked for beyond the likeliest next token: loops ended, beams, hints, times."""
