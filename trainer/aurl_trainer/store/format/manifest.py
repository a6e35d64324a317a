"""The manifest: everything about one checkpoint except the bytes of its tensors. Its head: all but these.

Readers accept their own format version and older ones, and refuse newer ones by name (not as damage).
docs/checkpoint-format.md describes each field. Not here: how tensors are cut into chunks (checkpoint/), or
where manifests lie (names.py, run_store.py).
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.format.boxes import disjoint
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.format.sealed import seal, unseal

FORMAT = "aurl-checkpoint"
VERSION = 2
"""1: each rank had one pack."""

ITEM_BYTES: dict[str, int] = {
    "bool": 1, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "uint16": 2, "int16": 2, "float16": 2, "bfloat16": 2,
    "uint32": 4, "int32": 4, "float32": 4,
    "uint64": 8, "int64": 8, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Element types that a checkpoint may hold, with their size in bytes. There is no type for objects."""


class FormatModel(BaseModel):
    """What lies on the store: frozen, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Chunk(FormatModel):
    """A box of a tensor, and where its bytes are: row-major, little-endian."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    pack: int = Field(ge=0)
    """Index into the manifest's `packs`."""
    at: int = Field(ge=0)
    """Where the stored bytes begin in the pack."""
    bytes: int = Field(ge=0)
    """How many are stored."""
    codec: Literal["raw", "zstd"] = "raw"
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the chunk's content."""
    stored: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the stored bytes, where these are not the content itself."""


class Tensor(FormatModel):
    """A tensor: element type, whole size, and its chunks, which cover it exactly."""

    dtype: str
    size: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @model_validator(mode="after")
    def _whole(self) -> Tensor:
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"{self.dtype!r} is not a type of numbers")
        volume = 0
        boxes = set()
        for chunk in self.chunks:
            if not len(chunk.offsets) == len(chunk.sizes) == len(self.size):
                raise ValueError("a chunk has other dimensions than its tensor")
            if any(
                o < 0 or n < 0 or o + n > size
                for o, n, size in zip(chunk.offsets, chunk.sizes, self.size, strict=True)
            ):
                raise ValueError("a chunk lies outside its tensor")
            if chunk.codec == "raw" and chunk.bytes != self.content_bytes(chunk):
                raise ValueError("a chunk has other bytes than its size says")
            if (chunk.codec == "raw") != (chunk.stored is None):
                raise ValueError("exactly the compressed chunks have a hash of what is stored")
            boxes.add((chunk.offsets, chunk.sizes))
            volume += math.prod(chunk.sizes)
        whole = volume == math.prod(self.size) and len(boxes) == len(self.chunks)
        if not (whole and disjoint(boxes)):
            raise ValueError("the chunks do not cover the tensor exactly")
        return self

    def content_bytes(self, chunk: Chunk) -> int:
        """Bytes of the chunk's content."""
        return math.prod(chunk.sizes) * ITEM_BYTES[self.dtype]


class Pack(FormatModel):
    """An object with the bytes of many chunks, one after the other and nothing between."""

    path: str = Field(pattern=r"^packs/[0-9A-Za-z-]+/rank-\d{4,}(-\d+)?\.pack$")
    """Below the run's place. It may be a pack of an earlier checkpoint."""
    bytes: int = Field(ge=0)


class Head(FormatModel):
    """One checkpoint but for its tensors: little, where many are looked at."""

    format: Literal["aurl-checkpoint"]
    version: int
    name: str
    number: int
    step: int = Field(ge=0)
    generation: int
    nonce: str
    run: str
    at: float
    """Seconds since the epoch."""
    world: int = Field(ge=1)
    """Ranks that saved it."""
    identity: dict[str, Any]
    """What a run that continues from here must share: the experiment without places and intervals."""
    versions: dict[str, str | None]
    """Of the code that saved it: aurl, torch, python, git commit."""
    metrics: dict[str, float | None]
    extra: Any
    """What else the training loop needs to go on, as store/format/plain.py encodes it."""
    scalars: Any
    """The state's tree with everything but the tensors."""
    packs: tuple[Pack, ...]

    @model_validator(mode="after")
    def _named(self) -> Self:
        name = CheckpointName(self.number, self.step, GenerationId(self.generation, self.nonce))
        if str(name) != self.name or CheckpointName.parse(self.name) is None:
            raise ValueError(f"is named {self.name}, but its fields say {name}")
        return self

    @property
    def checkpoint(self) -> CheckpointName:
        """Its name, parsed."""
        return CheckpointName(self.number, self.step, GenerationId(self.generation, self.nonce))

    @property
    def stored_bytes(self) -> int:
        """Bytes of all packs it refers to."""
        return sum(p.bytes for p in self.packs)

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders of those packs, sorted: its own, and those of earlier checkpoints."""
        return tuple(sorted({p.path.split("/")[1] for p in self.packs}))

    @classmethod
    def parse(cls, data: bytes, name: str) -> Self:
        """That of the manifest named `name`.

        Raises DamagedError for one that is not whole, was edited, or contradicts itself; CheckpointError for
        one of a newer format. A head says nothing of the tensors.
        """
        value = unseal(data, name)
        if value.get("format") != FORMAT:
            raise DamagedError(f"{name}: not a manifest of Aurl")
        version = value.get("version")
        check_version(version, name)
        if not isinstance(version, int) or version < 1:
            raise DamagedError(f"{name}: format version {version!r} does not exist")
        for field in Manifest.model_fields.keys() - cls.model_fields.keys():
            if value.pop(field, None) is None:
                raise DamagedError(f"{name}: {field}: Field required")
        try:
            manifest = cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(p) for p in first["loc"])
            raise DamagedError(f"{name}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
        if manifest.name != name:
            raise DamagedError(f"{name}: holds the manifest of {manifest.name}")
        return manifest


class Manifest(Head):
    """One checkpoint, whole."""

    tensors: dict[str, Tensor]

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for key, tensor in self.tensors.items():
            for chunk in tensor.chunks:
                if chunk.pack >= len(self.packs) or chunk.at + chunk.bytes > self.packs[chunk.pack].bytes:
                    raise ValueError(f"{key} lies outside its pack")
        return self

    def to_bytes(self) -> bytes:
        """The sealed object."""
        return seal(self.model_dump(mode="json", exclude_defaults=True))


def check_version(version: object, name: str) -> None:
    """Raises CheckpointError when the manifest `name` is of a newer format."""
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{name}: written by a newer Aurl (checkpoint format {version}; this one reads up to "
            f"{VERSION}): install that version to continue this run"
        )
