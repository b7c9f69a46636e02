"""A small network with BatchNorm, given to the launchers as `batch_norm_net:build`."""

import flax.linen as nn

from jaxunlearn.models.layers import blocks


class Net(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        rows = blocks.Dense(32)(blocks.features(inputs, mask))
        rows = nn.relu(blocks.BatchNorm()(rows, train, mask))
        return blocks.Dense(self.num_classes)(rows)


def build(num_classes, conv, dtype, hidden, width):
    return Net(num_classes)
