"""The 2-D convolution that stays fast when many models are trained as one program.

A native convolution has two problems in a population. On a CPU its automatic gradient inside `scan` or `map` is 20 to
70 times slower than outside, because XLA converts convolutions to the one layout that has a fast kernel only in the
entry computation, not inside loop bodies. Under `vmap` over weights it becomes a grouped convolution, whose weight
gradient has no good kernel on any platform. So the same function is offered in several forms:

    native     the plain call; use it for forward-mode differentiation of a loss (of networks without batch norm, whose
               gradient is a custom VJP too)
    canonical  native forward, gradients written as convolutions that already have the fast layout (custom VJP)
    im2col     patches times a matrix; the patches are recomputed for the gradient instead of being stored (custom VJP)
    unrolled   one native call per member under `vmap`, for forward and both gradients; grouped above 8 members
    grouped    native under `vmap`, but the weight gradient is one native call per member
    shift      sum of shifted pictures, for one to three input channels (custom VJP)
    cpu        policy: canonical; shift or im2col for at most 3 input channels, im2col for pictures of at most 4x4 and
               for 1x1 kernels

All forms take x [B, H, W, C], w [kh, kw, C, O] and return [B, oh, ow, O] with oh = (H + pt + pb - kh) // stride + 1.
Gradients of gradients (reverse over reverse) work in every form. Forward over reverse (`jax.jvp` of a gradient) works
in all but `unrolled` and `grouped`; plain forward mode only in `native`.
"""

import jax

from jaxunlearn import checks, errors
from jaxunlearn.models.layers import conv_implementations

FORMS = (*conv_implementations.FORMS, "cpu")


def conv(
    x: jax.Array, w: jax.Array, stride: int | tuple[int, int], padding: conv_implementations.Padding, form: str
) -> jax.Array:
    """Computes a 2-D convolution (cross-correlation, as in all network libraries) in the given form.

    Args:
      x: [B, H, W, C] float32 or bfloat16.
      w: [kh, kw, C, O], same dtype as x.
      stride: one number, or one per spatial axis.
      padding: rows and columns of zeros, ((top, bottom), (left, right)). PyTorch's `padding=1` is ((1, 1), (1, 1)).
      form: one of `FORMS`.

    Returns:
      [B, oh, ow, O], dtype of x. bfloat16 operands are accumulated in float32.

    Raises:
      ConfigError: unknown form.
      ShapeError: operands of the wrong rank, unequal channels, or a kernel larger than the padded picture.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.models.layers import conv
      >>> y = conv.conv(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), 1, ((1, 1), (1, 1)), "im2col")
      >>> y[0, :, :, 0].astype(int).tolist()
      [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]
    """
    checks.choice("convolution form", form, FORMS)
    bound = checks.shape("BHWC KLCO", x=x, w=w)
    strides = (stride, stride) if isinstance(stride, int) else (int(stride[0]), int(stride[1]))
    geometry = conv_implementations.Geometry(strides, padding, (bound["H"], bound["W"]), (bound["K"], bound["L"]))
    if min(geometry.output) < 1:
        raise errors.ShapeError(
            f"a {bound['K']}x{bound['L']} convolution with padding {padding} does not fit a picture of "
            f"{bound['H']}x{bound['W']}. Use larger pictures or an architecture with less pooling."
        )
    return conv_implementations.FORMS[_layer_form(form, bound["C"], bound["O"], geometry)](x, w, geometry)


def _layer_form(form: str, channels: int, outputs: int, geometry: conv_implementations.Geometry) -> str:
    """Returns the form of one layer under a policy, from static shapes only."""
    if form != "cpu":
        return form
    # With few input channels a matrix product has little to multiply and a native kernel wastes its vector lanes: the
    # first layer of the digits CNN takes 51 us as shift, 137 as im2col, 176 as canonical (one core, B = 64).
    if channels == 1 or (channels <= 3 and outputs <= 32):
        return "shift"
    # On tiny pictures a native kernel is mostly border, and a 1x1 kernel is a plain matrix product, 2 to 4 times faster
    # than a convolution with the picture as its window.
    is_cheap = channels <= 3 or max(geometry.size) <= 4 or geometry.kernel == (1, 1)
    return "im2col" if is_cheap else "canonical"
