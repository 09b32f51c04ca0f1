from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

class Matrix:
    def __init__(self, cols: int, group: int = 0) -> None: ...
    def add(self, codes: _Array, bits: int, steps: _Array) -> None: ...
    def add_generated(
        self, seed: int, layer: int, rows: int, zeros: int, structured: bool, step: float
    ) -> None: ...
    def gather(self, rows: _Array, out: _Array) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def group(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def step(self) -> float: ...
    @step.setter
    def step(self, step: float) -> None: ...

class TransformerBlock:
    def __init__(
        self,
        matrices: list[Matrix],
        vectors: list[_Array | None],
        heads: int,
        float_activations: bool = False,
    ) -> None: ...

_Map = tuple[Matrix, _Array | None, _Array | None, _Array | None]

class Tdnnf:
    def __init__(
        self,
        front: _Map | None,
        input: _Map,
        layers: list[_Map],
        heads: list[_Map],
        strides: list[int],
        feat_dim: int,
        ivector_dim: int,
        splice: int,
        third: int,
        at: int,
        bypass: float,
    ) -> None: ...

def tdnnf(
    network: Tdnnf, feats: _Array, ivectors: _Array | None, norms: list[_Array] | None, out: _Array
) -> None: ...
def linear(
    matrix: Matrix,
    x: _Array,
    out: _Array,
    bias: _Array | None = None,
    relu: int = 0,
    scale: _Array | None = None,
    shift: _Array | None = None,
    residual: _Array | None = None,
    residual_weight: float = 1.0,
    index: _Array | None = None,
    float_activations: bool = False,
) -> None: ...
def vocabulary(
    matrix: Matrix,
    x: _Array,
    chosen: _Array,
    bias: _Array | None,
    scores: _Array,
    normalizer: _Array,
    float_activations: bool = False,
) -> None: ...
def lstm(
    layers: list[tuple[Matrix, Matrix, _Array | None]],
    x: _Array,
    h: _Array,
    c: _Array,
    out: _Array,
    float_activations: bool = False,
) -> None: ...
def depthwise(
    x: _Array,
    taps: _Array,
    out: _Array,
    bias: _Array | None = None,
    stride: int = 1,
    dilation: int = 1,
    pad: int = 0,
    relu: int = 0,
) -> None: ...
def transformer(
    blocks: list[TransformerBlock], rows: _Array, n: int, keys: _Array, values: _Array, past: int
) -> None: ...
def layer_norm(x: _Array, gain: _Array, bias: _Array, eps: float, out: _Array) -> None: ...
def read_rate(bytes: int, seconds: float) -> float: ...
def peak_rate(seconds: float) -> float: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def threads() -> int: ...
def cores() -> int: ...
def set_threads(n: int) -> None: ...
