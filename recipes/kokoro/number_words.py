"""Numbers, ordinals and years as they are spoken, American and British."""

ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen""".split()  # noqa: SIM905
TENS = [None, None, "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SIZES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"))
IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def in_words(number: int, british: bool = False) -> str:
    """A number from 0 on: "two hundred five", British "two hundred and five"."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return f"{TENS[tens]}-{ONES[rest]}" if rest else TENS[tens]
    if number < 1000:
        count, rest = divmod(number, 100)
        head, joint = f"{ONES[count]} hundred", " and " if british else " "
    else:
        size, name = next((size, name) for size, name in SIZES if number >= size)
        count, rest = divmod(number, size)
        head = f"{in_words(count, british)} {name}"
        joint = " and " if british and rest < 100 else " "
    return head + joint + in_words(rest, british) if rest else head


def ordinal(number: int) -> str:
    """ "twenty-first" for 21."""
    cardinal = in_words(number)
    head, joint, last = cardinal.rpartition("-" if "-" in cardinal.split()[-1] else " ")
    if last in IRREGULAR:
        return head + joint + IRREGULAR[last]
    return head + joint + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def year(number: int) -> str:
    """A year from 1100 to 2099: "nineteen oh five", "two thousand and three"."""
    if 2000 <= number < 2010:
        return in_words(number, british=True)
    century, rest = divmod(number, 100)
    if rest == 0:
        return f"{in_words(century)} hundred"
    return f"{in_words(century)} {'oh ' if rest < 10 else ''}{in_words(rest)}"
