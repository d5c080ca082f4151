#!/usr/bin/env python3
"""Build sdist and wheel, look into them, install the wheel alone and run it.

    python tools/check_release.py                          # both frameworks, an environment each
    python tools/check_release.py --framework langchain
    python tools/check_release.py --keep dist              # keep what was built

Needs .venv (tools/setup_venv.py), whose uv does the work. Everything happens in a temporary folder.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

from setup_venv import (
    INDEX_HINT,
    OVERRIDES,
    PYTHON,
    ROOT,
    TORCH,
    step,
    torch_backend,
    with_pip_settings_for_uv,
)

PACKAGES = ("langchain_qwen3", "llama_index_qwen3", "qwen3_core", "qwen3_retrieval")
IN_WHEEL = (
    *(f"{package}/py.typed" for package in PACKAGES),
    "qwen3_core/remote/qwen3_reranker.jinja",
    "qwen3_core/tiny/README.md",
    *(
        f"qwen3_core/tiny/{kind}/{name}"
        for kind in ("embedding", "reranker")
        for name in ("config.json", "model.safetensors", "tokenizer.json")
    ),
)
IN_SDIST = (
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "tests/conftest.py",
    *IN_WHEEL,
)
DEMO_CORPUS = "qwen3_retrieval/demo/corpus/milvus.md"
"""In the sdist it lies among the examples."""
MAX_WHEEL = 25e6
"""Bytes; the bundled pair is 32 MB before compression."""

SMOKE = {
    "langchain": """
from langchain_milvus import Milvus
from langchain_qwen3 import (
    Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever, milvus_kwargs)
embeddings = Qwen3Embeddings(model="tiny")
store = Milvus(**milvus_kwargs(embeddings, uri="./smoke.db"))
store.add_texts(["Milvus keeps inserted data in object storage.", "Cats sleep."], ids=["1", "2"])
reranker = Qwen3Reranker(model="tiny")
retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, k=2, top_n=1)
found = [document.metadata["pk"] for document in retriever.invoke("How is data stored in Milvus?")]
""",
    "llama-index": """
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, milvus_kwargs
embed_model = Qwen3Embedding(model="tiny")
store = MilvusVectorStore(
    **milvus_kwargs(embed_model, uri="./smoke.db", use_async_client=False))
nodes = [TextNode(id_="1", text="Milvus keeps inserted data in object storage."),
         TextNode(id_="2", text="Cats sleep.")]
context = StorageContext.from_defaults(vector_store=store)
index = VectorStoreIndex(nodes, storage_context=context, embed_model=embed_model)
question = "How is data stored in Milvus?"
nodes = index.as_retriever(similarity_top_k=2).retrieve(question)
best = Qwen3Rerank(model="tiny", top_n=1).postprocess_nodes(nodes, query_str=question)
found = [node.node_id for node in best]
""",
}
"""What a user does first, with the bundled pair; `found` is what it came to."""

AFTER = """
import qwen3_core, sys
from qwen3_retrieval.demo.__main__ import BUNDLED
assert found == ["1"], found
assert [*BUNDLED.glob("*.md")], BUNDLED
assert "site-packages" in qwen3_core.__file__, qwen3_core.__file__
print("  ", qwen3_core.__version__, "from", qwen3_core.__file__)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--framework", choices=SMOKE, action="append")
    parser.add_argument("--keep", type=Path, help="folder for the built files")
    options = parser.parse_args()
    if not PYTHON.exists():
        sys.exit("There is no .venv yet: run tools/setup_venv.py first.")

    env = with_pip_settings_for_uv({**os.environ, "UV_LINK_MODE": "copy"})
    env.pop("PYTHONPATH", None)  # else the checkout would be tested in place of the wheel
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        uv = [str(PYTHON), "-m", "uv"]
        build = [*uv, "build", "--out-dir", str(work / "dist"), str(ROOT)]
        step("building sdist and wheel (the wheel from the sdist)", build, env, INDEX_HINT)
        (sdist,) = (work / "dist").glob("*.tar.gz")
        (wheel,) = (work / "dist").glob("*.whl")
        check_content(sdist, wheel)
        check_extras(uv, wheel, work, env)
        for framework in options.framework or SMOKE:
            try_alone(uv, wheel, framework, work, env)
        if options.keep:
            shutil.copytree(work / "dist", options.keep, dirs_exist_ok=True)
    print("The release is good.")


def check_content(sdist: Path, wheel: Path) -> None:
    """Exit unless the files hold what they must, and nothing else at the top of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    strange = [top for top in tops if top not in PACKAGES and not top.endswith(".dist-info")]
    if strange:
        sys.exit(f"{wheel.name} holds {', '.join(sorted(strange))} beside the packages")
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    for file, held, wanted in (
        (wheel, names, (*IN_WHEEL, DEMO_CORPUS)),
        (sdist, sources, IN_SDIST),
    ):
        missing = [name for name in wanted if name not in held]
        if missing:
            sys.exit(f"{file.name} lacks {', '.join(missing)}")
        print(f"   {file.name}: {len(held)} files, {file.stat().st_size / 1e6:.1f} MB")
    if wheel.stat().st_size > MAX_WHEEL:
        sys.exit(f"{wheel.name} is larger than {MAX_WHEEL / 1e6:.0f} MB")


def check_extras(uv: list[str], wheel: Path, work: Path, env: dict[str, str]) -> None:
    """Exit unless the requirements of each extra, alone, can be met."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    wanted = work / "wanted.txt"
    resolve = [
        *uv,
        "pip",
        "compile",
        "--quiet",
        str(wanted),
        "--output-file",
        str(work / "set.txt"),
    ]
    for extra in extras:
        wanted.write_text(f"qwen3-retrieval[{extra}] @ {wheel.as_uri()}\n")
        step(f"resolving [{extra}]", resolve, env, INDEX_HINT)
    wanted.write_text(f"qwen3-retrieval[langchain,llama-index] @ {wheel.as_uri()}\n")
    both = [*resolve, "--override", str(OVERRIDES)]
    step("resolving both frameworks with overrides.txt", both, env, INDEX_HINT)


def try_alone(uv: list[str], wheel: Path, framework: str, work: Path, env: dict[str, str]) -> None:
    """Exit unless the wheel works in an environment that holds it and one framework alone."""
    folder = work / framework
    step(f"an environment for {framework}", [*uv, "venv", str(folder)], env, INDEX_HINT)
    python = folder / "bin" / "python"
    install = [*uv, "pip", "install", "--python", str(python), *torch_backend(env), TORCH]
    install += [f"qwen3-retrieval[{framework}] @ {wheel.as_uri()}"]
    step(f"installing the wheel with [{framework}]", install, env, INDEX_HINT)
    print(f"trying {framework}", flush=True)
    code = SMOKE[framework] + AFTER
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    subprocess.run([str(python), "-I", "-c", code], cwd=folder, env=offline, check=True)


if __name__ == "__main__":
    main()
