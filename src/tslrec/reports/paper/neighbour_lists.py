"""Beyond the paper: the nearest neighbours of items in the space of the knowledge."""

from __future__ import annotations

from tslrec.reports.paper.document import Section, TableCell, TableView, digits
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import ABLATIONS, mean_cell


@section("neighbours", place=100, methods=("tslrec", *ABLATIONS))
def neighbours(inputs: SectionInputs) -> Section:
    """How the neighbours by knowledge agree with those by the backbone's embeddings and clusters, and lists of them."""
    rows = [row for row in inputs.rows if all("neighbours" in cell.content for cell in row.cells)]
    shares: list[list[TableCell | str]] = []
    names = ("explained", "overlap", "by_chance", "same_cluster", "own_same_cluster")
    for row in rows:
        found = [cell.content["neighbours"] for cell in row.cells]
        line: list[TableCell | str] = [row.title, row.method_title]
        for name in names:
            if all(name in each for each in found):
                line.append(mean_cell([each[name] for each in found], row, show=lambda value: digits(value, 3)))
            else:
                line.append("")
        shares.append(line)
    notes = [
        "Explained: the share of the variance of the backbone's own embeddings that a linear map of the knowledge "
        "gives back, for items that the map was not fitted to. The rest is of an item's ten nearest by the cosine of "
        "standardised knowledge. Shared: those that are among its ten nearest by the own embeddings, and by chance "
        "would be. In its cluster: by knowledge, and by own embeddings."
    ]
    columns = ["", "method", "explained", "shared", "by chance", "in its cluster", "by own embeddings"]
    tables = [TableView("Nearest neighbours", columns, shares, notes)] if rows else []
    lists = []
    for row in rows:
        if row.method_name != "tslrec":
            continue
        data, cell = row.data_name, row.cells[0]
        lines: list[list[TableCell | str]] = [
            [
                inputs.item_title(data, probe["item"]),
                *(
                    TableCell(inputs.item_title(data, item), f"cosine {cosine:.3f}", (cell.name,))
                    for item, cosine in zip(probe["nearest"], probe["cosines"], strict=True)
                ),
            ]
            for probe in cell.content["neighbours"]["probes"]
        ]
        heads = ["item", *(f"nearest {i}" for i in range(1, max(map(len, lines))))]
        lists.append(TableView(f"{row.title}, seed {cell.seed}: the most popular items", heads, lines))
    return Section(
        "neighbours",
        "Beyond the paper: what the knowledge finds alike",
        "Where the data set names its items the lists have titles, otherwise the ids of the file.",
        tables,
        missing_note="" if rows else "no cell with a knowledge embedding yet",
        more=lists,
    )
