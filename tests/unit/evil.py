"""Names that are markup, escapes or broken text, and records that bear them."""

from __future__ import annotations

from autoprune.front.importance import Importance, ImportanceRow, Importances

#: A name -> what may be seen of it.
EVIL = {
    "[/x]": "[/x]",
    "[red]a[/red] :smile: [link=file:///x]b": "[red]a[/red] :smile: [link=file:///x]b",
    "a\x1b[2Jb\x1b]0;title\x07c\x9b31md": "abcd",
    "left\u202eright": r"left\u202eright",
    "half \ud800": r"half \ud800",
    "bell\x07 \x85": r"bell\x07 \x85",
}


def importances_of(name: str) -> Importances:
    row = ImportanceRow(name=name, members=1, targets={name: Importance(share=0.5, low=0.4, high=0.6, chance=0.1)})
    return Importances(trials=20, targets=(name,), parameters=(row,), left_out={name: name}, notes=(name,))
