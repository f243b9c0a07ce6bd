"""The separator of a table as people write it, and the one that a line seems to have."""

from __future__ import annotations

from tslrec.data.formats.wording import brief

WORDS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "colon": ":", "blank": " "}
"""Names of separators that are hard to type on a command line."""
LIKELY = ("\t", "::", ";", "|", ",", " ")
"""What separates the usual files; the most telling first."""


def separator_of(spelled: str, first_line: str) -> str:
    r"""The separator that a setting means.

    Args:
        spelled: `tab`, `\t`, a tab, `comma`, `;`, `::` ….  Hydra strips white space that is not quoted, so an empty
            text stands for the white space that the file has.
        first_line: the file's first line.
    """
    plain = spelled.strip("\"'") if len(spelled) > 1 else spelled
    if plain == "":
        return "\t" if "\t" in first_line else " "
    return WORDS.get(plain.lower(), plain.replace("\\t", "\t"))


def name_of(separator: str) -> str:
    """How a person can type a separator as a setting's value."""
    return next((word for word, sign in WORDS.items() if sign == separator), brief(separator))


def likely_separator(first_line: str) -> str | None:
    """The separator that a line seems to have; None if it has none of the usual ones."""
    return next((sign for sign in LIKELY if sign in first_line.strip()), None)
