"""Make the notebooks from `docs/notebooks/*.md`, run them with the bundled pair and save them."""

import os
import tempfile
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def sources() -> list[Path]:
    """The pages that are notebooks."""
    return [page for page in sorted(FOLDER.glob("*.md")) if page.name != "index.md"]


def convert(page: Path) -> NotebookNode:
    """A page as a notebook that has not run."""
    notebook: NotebookNode = jupytext.reads(page.read_text("utf-8"), fmt="md")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # else random: every run would change every cell
    return notebook


def execute(notebook: NotebookNode) -> NotebookNode:
    """Run a notebook in an empty folder, without network or key; an error in a cell is raised."""
    hidden = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("OPENAI_")}
    try:
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(
                notebook,
                timeout=300,
                kernel_name="python3",
                record_timing=False,
                resources={"metadata": {"path": folder}},
            ).execute()
    finally:
        os.environ.update(hidden)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # warnings and progress of this machine
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def main() -> None:
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for page in sources():
        jupytext.write(execute(convert(page)), page.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
