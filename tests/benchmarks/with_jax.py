"""The networks of `throughput.py` in JAX, mapped over replicas and compiled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

if TYPE_CHECKING:
    from throughput import Step, Task

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # torch's
RATE = 1e-3
jax.config.update("jax_enable_x64", True)  # float32 arrays stay what they are


def norm(x: Any, axes: tuple[int, ...] = (-1,)) -> Any:
    """Layer normalisation without affine parameters."""
    centred = x - x.mean(axes, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(axes, keepdims=True) + 1e-5)


def affine(p: dict[str, Any], name: str, x: Any) -> Any:
    """Apply one linear layer."""
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def mlp(p: dict[str, Any], x: Any) -> Any:
    """Return logits (batch, class)."""
    for name in ("one", "two"):
        x = jax.nn.relu(norm(affine(p, name, x)))
    return affine(p, "head", x)


def rnn(p: dict[str, Any], x: Any) -> Any:
    """Return logits (batch, class)."""

    def step(hidden: Any, read: Any) -> tuple[Any, None]:
        return jnp.tanh(norm(read + hidden @ p["step.weight"].T)), None

    start = jnp.zeros((len(x), 32), x.dtype)
    hidden, _ = lax.scan(step, start, affine(p, "read", x).swapaxes(0, 1))
    return affine(p, "head", hidden)


def transformer(p: dict[str, Any], x: Any) -> Any:
    """Return logits (batch, class)."""

    def heads(x: Any) -> Any:
        return x.reshape(*x.shape[:-1], 2, 16).swapaxes(-3, -2)

    x = affine(p, "read", x)
    for block in range(2):
        q, k, v = map(heads, jnp.split(affine(p, f"qkv{block}", norm(x)), 3, -1))
        mixed = jax.nn.softmax(q @ k.swapaxes(-2, -1) / 4, -1) @ v
        mixed = mixed.swapaxes(-3, -2)
        x = x + affine(p, f"out{block}", mixed.reshape(x.shape))
        up = jax.nn.gelu(affine(p, f"up{block}", norm(x)), approximate=False)
        x = x + affine(p, f"down{block}", up)
    return affine(p, "head", x.mean(-2))


def cnn(p: dict[str, Any], x: Any) -> Any:
    """Return logits (batch, class)."""
    for name in ("one", "two"):
        x = lax.conv(x, p[f"{name}.weight"], (1, 1), "SAME")
        x = x + p[f"{name}.bias"][:, None, None]
        x = jax.nn.relu(norm(x, (-3, -2, -1)))
    return affine(p, "head", x.mean((-2, -1)))


FORWARD = {"MLP": mlp, "RNN": rnn, "Transformer": transformer, "CNN": cnn}


def compiled(work: Task) -> Step:
    """Return a step of Adam on all replicas, as one compiled program."""
    forward = FORWARD[work.network.__name__]
    x, y = jnp.asarray(work.x.numpy()), jnp.asarray(work.y.numpy())

    def loss(p: dict[str, Any], x: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(forward(p, x))
        return -jnp.take_along_axis(logs, y[:, None], -1).mean()

    gradients = jax.vmap(jax.value_and_grad(loss))

    @partial(jax.jit, donate_argnums=0)
    def train(state: Any) -> Any:
        p, mean, square, count = state
        losses, found = gradients(p, x, y)
        count = count + 1
        mean = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, mean, found)
        square = jax.tree.map(
            lambda s, g: BETA2 * s + (1 - BETA2) * g * g, square, found
        )
        one, two = 1 - BETA1**count, 1 - BETA2**count

        def update(w: Any, m: Any, s: Any) -> Any:
            new = w - RATE * (m / one) / (jnp.sqrt(s / two) + EPS)
            return new.astype(w.dtype)

        return (jax.tree.map(update, p, mean, square), mean, square, count), losses

    p = {name: jnp.asarray(value.numpy()) for name, value in work.stacked.items()}
    zeros = jax.tree.map(jnp.zeros_like, p)
    kept = [(p, zeros, jax.tree.map(jnp.zeros_like, p), jnp.zeros((), x.dtype))]

    def run(steps: int) -> torch.Tensor:
        for _ in range(steps):
            kept[0], losses = train(kept[0])
        return torch.tensor(jax.device_get(losses))

    return run
