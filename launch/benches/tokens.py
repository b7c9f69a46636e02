"""Scores of texts on one core: one program against a loop over texts in NumPy, and against one pass per score.

10,000 texts of at most 512 predictions with all moments; losses of one IN and one OUT model, 1,000 population texts.
The signals per token come from a small transformer: in one forward pass, against one pass for each score of tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxunlearn import progress

from . import one_core
from .one_core import Say
from .timing import Row

LOOP_TARGET = 1.5  # NumPy sorts with AVX-512


class Sizes(NamedTuple):
    """Sizes: N texts, T predictions, P population texts, K levels of IAM; `rounds` of the times."""

    texts: int = 10_000
    tokens: int = 512
    population: int = 1000
    levels: int = 1000
    rounds: int = 5
    round_seconds: float = 0.5


class ModelSizes(NamedTuple):
    """A decoder-only transformer and its inputs: N texts of T tokens, `batch` at a time."""

    texts: int = 64
    tokens: int = 128
    batch: int = 16
    vocabulary: int = 1000
    width: int = 128
    layers: int = 4
    heads: int = 4


FULL = Sizes()
QUICK = Sizes(40, 16, 10, 20, 1, 0.001)
QUICK_MODEL = ModelSizes(3, 8, 2, 12, 8, 1, 2)


def run(quick: bool = False) -> list[Row]:
    """Runs the bench in a separate process on one core.

    Args:
      quick: tiny sizes; otherwise about a minute.

    Returns:
      Rows as `launch.bench` describes them.
    """
    progress.Reporter().log("scores of texts, in a process on one core")
    return one_core.rows_of(__name__, "time", quick)


def rows(sizes: Sizes, say: Say) -> list[Row]:
    """Measures the ratios in this process."""
    results = []
    facts = {"texts": sizes.texts, "tokens": sizes.tokens, "population": sizes.population, "levels": sizes.levels}
    ways = ways_of(sizes)
    for name, target in (("a loop over texts in NumPy", LOOP_TARGET), ("one program per score", None)):
        say(name)
        results.append(
            one_core.ratio(f"all scores of texts in one program against {name}", ways["here"], ways[name],
                           target, sizes.rounds, sizes.round_seconds, **facts)
        )  # fmt: skip
    return [*results, extraction_row(sizes, say)]


def extraction_row(sizes: Sizes, say: Say) -> Row:
    """Measures all signals per token in one forward pass against the four passes of the published scores."""
    model = QUICK_MODEL if sizes == QUICK else ModelSizes()
    say("a forward pass for each score")
    ways = ways_of_extraction(model)
    for way in ways.values():
        way()  # compiles
    return one_core.ratio(
        "signals of all scores of tokens in one forward pass against one for each score", ways["here"],
        ways["a pass for each score"], None, sizes.rounds, sizes.round_seconds, **model._asdict(),
    )  # fmt: skip


def draw(sizes: Sizes, seed: int = 0) -> dict[str, Any]:
    """Draws arrays by the names of `scores.texts.score_arrays`; texts have at least a fifth of the length."""
    import numpy as np

    generator = np.random.default_rng(seed)
    n, t, p = sizes.texts, sizes.tokens, sizes.population
    shape = (n, t)

    def uniform(low: float, high: float, size: Any) -> Any:
        return generator.uniform(low, high, size).astype(np.float32)

    return {
        "token_logp_target": -generator.gamma(1.0, 2.0, shape).astype(np.float32),
        "mask": np.arange(t) < generator.integers(max(t // 5, 5), t + 1, n)[:, None],
        "entropy": uniform(0.5, 4, shape), "model_std": uniform(0.3, 2, shape),
        "vocab_mean": uniform(-12, -8, shape), "vocab_std": uniform(1, 3, shape), "deflated": uniform(0.3, 0.7, n),
        "nll_fit": uniform(1, 3, n), "nll_ref": uniform(1, 3, (1, n)), "pop_nll_target": uniform(1, 3, p),
        "pop_nll_fit": uniform(1, 3, p), "pop_nll_ref": uniform(1, 3, (1, p)),
    }  # fmt: skip


def ways_of(sizes: Sizes) -> dict[str, Callable[[], dict[str, Any]]]:
    """Returns way -> () -> name -> [N]; all compute the same numbers from the same arrays."""
    import jax

    from jaxunlearn import scores
    from jaxunlearn.scores import texts

    token_arrays = draw(sizes)
    options = scores.Options(tokens=scores.Options().tokens._replace(interpolation_steps=sizes.levels))
    names = list(jax.eval_shape(lambda values: texts.score_arrays(values, options), token_arrays))
    # The compiler removes unused outputs: each program computes its own score only.
    single_programs = [jax.jit(lambda values, name=name: texts.score_arrays(values, options)[name]) for name in names]
    return {
        "here": lambda: texts.score_arrays(token_arrays, options),
        "a loop over texts in NumPy": lambda: plain(token_arrays, sizes.levels),
        "one program per score": lambda: {
            name: program(token_arrays) for name, program in zip(names, single_programs, strict=True)
        },
    }


def ways_of_extraction(sizes: ModelSizes) -> dict[str, Callable[[], dict[str, Any]]]:
    """Returns way -> () -> arrays per token [N, T - 1]: all in one pass, or one pass for each score's arrays."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxunlearn.scores import tokens

    params = drawn_transformer(sizes)
    generator = np.random.default_rng(1)
    ids = generator.integers(0, sizes.vocabulary, (sizes.texts, sizes.tokens))
    mask = np.arange(sizes.tokens) < generator.integers(2, sizes.tokens + 1, sizes.texts)[:, None]

    def apply(params: Any, ids: Any, mask: Any) -> Any:
        return transformer(params, ids, sizes.heads)

    def read(params: Any, rows: Any, counts: Any, names: tuple[str, ...]) -> dict[str, Any]:
        logits = apply(params, rows, counts)[:, :-1]
        logp = jax.nn.log_softmax(logits, -1)
        p = jnp.exp(logp)
        entropy = -jnp.sum(p * logp, -1)
        signals = {
            "logp": lambda: jnp.take_along_axis(logp, rows[:, 1:, None], -1)[..., 0],
            "entropy": lambda: entropy,
            "model_std": lambda: jnp.sqrt(jnp.sum(p * (logp + entropy[..., None]) ** 2, -1)),
            "vocab_mean": lambda: logp.mean(-1),
            "vocab_std": lambda: logp.std(-1, ddof=1),
        }
        keep = counts[:, :-1] & counts[:, 1:]
        return {name: jnp.where(keep, signals[name](), 0.0) for name in names}

    # Loss, Min-K, SURP, and Min-K++ with both kinds of moments.
    names_by_score = (
        ("logp",),
        ("logp",),
        ("logp", "entropy"),
        ("logp", "entropy", "model_std", "vocab_mean", "vocab_std"),
    )
    passes = [jax.jit(lambda *arguments, names=score_names: read(*arguments, names)) for score_names in names_by_score]

    def apart() -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for program in passes:
            blocks = [slice(start, start + sizes.batch) for start in range(0, sizes.texts, sizes.batch)]
            results = [jax.tree.map(np.asarray, program(params, ids[block], mask[block])) for block in blocks]
            arrays |= {name: np.concatenate([result[name] for result in results]) for name in results[0]}
        return arrays

    def together() -> dict[str, Any]:
        extracted = tokens.extract(apply, params, ids, mask, batch=sizes.batch)._asdict()
        return {name: extracted[name] for name in names_by_score[-1]}

    return {"here": together, "a pass for each score": apart}


def drawn_transformer(sizes: ModelSizes) -> dict[str, Any]:
    """Draws random weights of a decoder: embeddings (tied), positions, and the matrices of each block."""
    import numpy as np

    generator, d = np.random.default_rng(0), sizes.width

    def matrix(*shape: int) -> Any:
        return (generator.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)

    blocks = [{"qkv": matrix(d, 3 * d), "out": matrix(d, d), "up": matrix(d, 4 * d), "down": matrix(4 * d, d)}
              for _ in range(sizes.layers)]  # fmt: skip
    return {"embedding": matrix(sizes.vocabulary, d) * d**0.5, "positions": matrix(sizes.tokens, d), "blocks": blocks}


def transformer(params: dict[str, Any], ids: Any, heads: int) -> Any:
    """Computes logits [B, T, V] of a decoder-only transformer without dropout."""
    import jax
    import jax.numpy as jnp

    def normal(x: Any) -> Any:
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)

    embedding = jnp.asarray(params["embedding"])
    x = embedding[ids] + params["positions"]
    batch, length, width = x.shape
    for block in params["blocks"]:
        q, k, v = jnp.split((normal(x) @ block["qkv"]).reshape(batch, length, heads, -1), 3, -1)
        attended = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + attended.reshape(batch, length, width) @ block["out"]
        x = x + jax.nn.gelu(normal(x) @ block["up"]) @ block["down"]
    return normal(x) @ embedding.T / width**0.5


def plain(token_arrays: dict[str, Any], levels: int) -> dict[str, Any]:
    """Computes the scores text by text, as published: sorted log-probabilities, then IAM level by level."""
    import numpy as np

    values_by_score: dict[str, list[float]] = {name: [] for name in (
        "nll", "lm_min_k", "lm_min_k_pp", "lm_min_k_pp_vocab", "lm_surp", "lm_pac_distance"
    )}  # fmt: skip
    fields = ("token_logp_target", "entropy", "model_std", "vocab_mean", "vocab_std")
    for row, mask in enumerate(token_arrays["mask"]):
        logp, entropy, std, mean, plain_std = (token_arrays[name][row][mask] for name in fields)
        n = len(logp)
        order = np.argsort(logp, kind="stable")
        rising, k = logp[order], max(1, int(0.2 * n))
        lowest = order[: max(1, int(0.4 * n))]
        confident = lowest[entropy[lowest] < 2.0]
        values_by_score["nll"].append(-logp.mean())
        values_by_score["lm_min_k"].append(rising[:k].mean())
        values_by_score["lm_min_k_pp"].append(np.sort((logp + entropy) / std)[:k].mean())
        values_by_score["lm_min_k_pp_vocab"].append(np.sort((logp - mean) / plain_std)[:k].mean())
        values_by_score["lm_surp"].append(logp[confident].mean() if len(confident) else -100.0)
        high, low = rising[-max(1, int(0.05 * n)) :], rising[: max(1, int(0.3 * n))]
        values_by_score["lm_pac_distance"].append(-(high.mean() - low.mean()))
    results = {name: np.array(values) for name, values in values_by_score.items()}
    nll, fit, ref = results.pop("nll"), token_arrays["nll_fit"].astype(float), token_arrays["nll_ref"][0].astype(float)
    results |= {"lm_loss": -nll, "lm_ratio": -nll / ref, "lm_zlib": -nll / token_arrays["deflated"]}
    a, b, q = (np.log(np.exp(-v) / (1 - np.exp(-v) + 1e-30)) for v in (fit, ref, nll))
    results["lm_lira"] = ((q - b) ** 2 - (q - a) ** 2) / 2
    target, inside, outside = (
        np.exp(-token_arrays[f"pop_nll_{name}"].astype(float)) for name in ("target", "fit", "ref")
    )
    population_ratios = target / ((inside + outside[0]) / 2)
    ratios = np.exp(-nll) / ((np.exp(-fit) + np.exp(-ref)) / 2)
    results["lm_rmia"] = np.array([(ratio / population_ratios > 2.0).mean() for ratio in ratios])
    x, f, r = (-np.log(0.1 - np.log(1e-5 + 1 - np.exp(-v))) for v in (nll, fit, ref))
    total, weights = np.zeros(len(x)), np.arange(1, levels) / (levels - 1)
    for step, weight in enumerate(weights):
        level = f + step / (levels - 1) * (r - f)
        beta = np.sqrt(6) * (level.std() + 1e-9) / np.pi
        total += weight * np.exp(-np.exp(-(x - level + 0.5772 * beta) / beta))
    results["lm_iam"] = 1 - total / weights.sum()
    return results


if __name__ == "__main__":
    one_core.main({"time": rows}, QUICK, FULL)
