"""Section: one part of a report or a dashboard as plain data, without HTML."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from autoprune.report.figure import Figure, json_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Table of texts.

    Attributes:
        head: Names of the columns.
        rows: Cells of each row, one for each column.
        names: Number of columns in front that hold names or sentences; the others hold numbers, which are aligned and
            never broken over two lines.
        sortable: Whether another order of the rows makes sense.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    sortable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Figure with its text alternative.

    Attributes:
        figure: The figure.
        text: What it shows, with its main numbers, for people who do not see it.
        title: Title above it where a section has several; "" for none.
        wide: Whether it needs the whole width of the page.
    """

    figure: Figure
    text: str
    title: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One view of a run.

    Attributes:
        anchor: Name of the section in links, such as "front".
        title: Title.
        lead: What the section says, in a sentence or two; "" for nothing.
        pictures: Figures.
        notes: Sentences under the figures.
        warnings: Sentences that a reader must not miss.
        table: Table under the sentences.
    """

    anchor: str
    title: str
    lead: str = ""
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    table: Table | None = None

    def plain(self) -> object:
        """Convert to values of JSON.

        Returns:
            The section as mappings, lists, texts and numbers.
        """
        return json_values(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One number of the result.

    Attributes:
        value: The number, such as "30%".
        label: Its meaning, such as "of the multiply-adds".
        note: Noise or interval; "" for none.
    """

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The result of a study on one screen.

    Attributes:
        headline: The result in one sentence.
        is_warning: Whether the sentence tells of something wrong, or of a loss.
        candidate: Number of the suggested candidate; None where there is none.
        standing: "Suggested", or "In doubt" or "Nearest" where no candidate keeps the limits for certain.
        facts: Main numbers of that candidate against dense.
        why: Sentences: why that candidate.
        trust: Sentences: how far its numbers can be trusted.
        warnings: Sentences that a reader must not miss.
        table: The dense model and the candidate side by side, on the search and on the test split.
        picture: The chart.
    """

    headline: str
    is_warning: bool = False
    candidate: int | None = None
    standing: str = "Suggested"
    facts: tuple[Fact, ...] = ()
    why: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    table: Table | None = None
    picture: Picture | None = None

    def plain(self) -> object:
        """Convert to values of JSON.

        Returns:
            The summary as mappings, lists, texts and numbers.
        """
        return json_values(asdict(self))
