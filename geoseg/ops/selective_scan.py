"""The selective scan of the state-space papers, for any number of states and groups."""

from torch import Tensor

from geoseg.ops import _torch, library, reference
from geoseg.ops._dtypes import cast, wide
from geoseg.ops.backends import choose_backend, without_autocast


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Run the selective state-space recurrence along the last axis.

    h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t;  y_t = C_t h_t + D u_t (Gu and Dao, "Mamba",
    2023). The state is kept in float32, in float64 for float64 input.

    Args:
        u: input, (N, K*D, L), float32, bfloat16, float16 or float64.
        delta: step sizes, before softplus if that is asked for, (N, K*D, L).
        A: state decay, (K*D, S), negative.
        B: input weights, shared by the D channels of a direction, (N, K, S, L).
        C: output weights, (N, K, S, L).
        D: skip weights, (K*D,); None: no skip.
        delta_bias: added to delta, (K*D,).
        delta_softplus: whether delta goes through softplus.
        backend: None takes the first that can run; a name runs or raises.

    Returns:
        (N, K*D, L), dtype of ``u``.

    Raises:
        BackendUnavailableError: the named backend cannot run here; the message says why.
        ValueError: shapes that do not belong together.
    """
    _check(u, delta, A, B, C, D, delta_bias)
    name = choose_backend("selective_scan", u.device.type, backend)
    dtype = wide(u)
    A = cast(A, dtype)
    D = None if D is None else cast(D, dtype).contiguous()
    delta_bias = None if delta_bias is None else cast(delta_bias, dtype).contiguous()
    with without_autocast(u.device.type):
        if name == "reference":
            y = reference.selective_scan(
                u.to(dtype),
                delta.to(dtype),
                A,
                B.to(dtype),
                C.to(dtype),
                D,
                delta_bias,
                delta_softplus=delta_softplus,
            )
            return y.to(u.dtype)
        if name == "torch":
            return _torch.selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus)
        u, delta, A, B, C = (t.contiguous() for t in (u, delta, A, B, C))
        return library.selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus)


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.ndim != 3 or delta.shape != u.shape:
        raise ValueError(
            f"selective_scan expects u and delta of one shape (N, K*D, L); got {tuple(u.shape)} "
            f"and {tuple(delta.shape)}."
        )
    batch, channels, length = u.shape
    groups = B.shape[1] if B.ndim == 4 else 0
    states = A.shape[1] if A.ndim == 2 else 0
    if groups == 0 or states == 0 or channels % groups:
        raise ValueError(
            f"selective_scan expects A (K*D, S) and B (N, K, S, L) with K dividing K*D = "
            f"{channels}; got A {tuple(A.shape)} and B {tuple(B.shape)}."
        )
    expected = {
        "A": (A, (channels, states)),
        "B": (B, (batch, groups, states, length)),
        "C": (C, (batch, groups, states, length)),
        "D": (D, (channels,)),
        "delta_bias": (delta_bias, (channels,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"selective_scan expects {name} of shape {shape}; got {tuple(tensor.shape)}."
            )
