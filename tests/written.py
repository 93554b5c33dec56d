"""Sentences in five languages and four scripts, as they are written."""

GERMAN = "Die Straße ist naß, 20 Züge fahren über Köln; schön!"
GREEK = "Πού είναι η στάση; Στις 7:30 φεύγω."
RUSSIAN = "Съешь ещё этих мягких булок, да выпей чаю."
MANDARIN = "我们坐地铁2号线去北京大学。"
THAI = "ที่นี่ไม่มีรถไฟ"
JAPANESE = "東京のラーメンは美味しい。"

SENTENCES = (GERMAN, GREEK, RUSSIAN, MANDARIN)
MIXED = "Ich heiße Bär; στις 7:30 φεύγω. Съешь булок, 我们坐地铁。"
