"""mSAM in plain numpy, forward and backward passes by hand, one micro-batch after the other. Slow and obvious."""

import numpy as np

TINY = 1e-12


def cross_entropy(logits, label):
    """Loss of one row and its gradient in the logits."""
    shifted = logits - logits.max()
    p = np.exp(shifted) / np.exp(shifted).sum()
    loss = np.log(np.exp(shifted).sum()) - shifted[label]
    p[label] -= 1.0
    return loss, p


def tanh_mlp(weights, x, label):
    """W2 tanh(W1 x + b1) + b2 for one row: loss and gradients."""
    W1, b1, W2, b2 = weights
    hidden = np.tanh(W1 @ x + b1)
    loss, d = cross_entropy(W2 @ hidden + b2, label)
    back = (W2.T @ d) * (1 - hidden**2)
    return loss, [np.outer(back, x), back, np.outer(d, hidden), d]


def small_cnn(weights, x, label):
    """Valid 3x3 convolution, tanh, linear head, one row of shape (channels, h, w)."""
    K, b, W, c = weights
    _, height, width = x.shape
    out = np.zeros((K.shape[0], height - 2, width - 2))
    for o in range(K.shape[0]):
        for i in range(height - 2):
            for j in range(width - 2):
                out[o, i, j] = (K[o] * x[:, i : i + 3, j : j + 3]).sum() + b[o]
    hidden = np.tanh(out)
    loss, d = cross_entropy(W @ hidden.ravel() + c, label)
    back = (W.T @ d).reshape(hidden.shape) * (1 - hidden**2)
    dK = np.zeros_like(K)
    for o in range(K.shape[0]):
        for i in range(height - 2):
            for j in range(width - 2):
                dK[o] += back[o, i, j] * x[:, i : i + 3, j : j + 3]
    return loss, [dK, back.sum((1, 2)), np.outer(d, hidden.ravel()), d]


def encoder(weights, ids, label, eps=1e-5):
    """Embedding, LayerNorm of every token, tanh linear, mean over tokens, linear head; one row of token ids."""
    E, gamma, beta, W, b, V, c = weights
    gradients = [np.zeros_like(w) for w in weights]
    vectors = E[ids]
    centred = vectors - vectors.mean(1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    xhat = centred / deviation
    hidden = np.tanh((xhat * gamma + beta) @ W.T + b)
    loss, d = cross_entropy(V @ hidden.mean(0) + c, label)
    gradients[5], gradients[6] = np.outer(d, hidden.mean(0)), d
    for t, token in enumerate(ids):
        dz = (V.T @ d) / len(ids) * (1 - hidden[t] ** 2)
        y = xhat[t] * gamma + beta
        gradients[3] += np.outer(dz, y)
        gradients[4] += dz
        dy = W.T @ dz
        gradients[1] += dy * xhat[t]
        gradients[2] += dy
        dxhat = dy * gamma
        dx = (dxhat - dxhat.mean() - xhat[t] * (dxhat * xhat[t]).mean()) / deviation[t]
        gradients[0][token] += dx
    return loss, gradients


def mean_gradient(net, weights, x, y, row_weights):
    total = [np.zeros_like(w) for w in weights]
    value = 0.0
    for row, label, a in zip(x, y, row_weights, strict=True):
        loss, gradients = net(weights, row, label)
        value += a * loss
        total = [t + a * g for t, g in zip(total, gradients, strict=True)]
    scale = sum(row_weights)
    return value / scale, [t / scale for t in total]


def msam_gradient(net, weights, x, y, sizes, rho, row_weights=None, adaptive=None, eta=0.01):
    """Sum of shares times grad L_i(w + eps_i); also the loss at w."""
    row_weights = np.ones(len(x)) if row_weights is None else np.asarray(row_weights, dtype=float)
    result, value, start = [np.zeros_like(w) for w in weights], 0.0, 0
    for size in sizes:
        part = slice(start, start + size)
        start += size
        share = row_weights[part].sum() / row_weights.sum()
        loss, g = mean_gradient(net, weights, x[part], y[part], row_weights[part])
        if adaptive == "squared":
            T = [np.abs(w) for w in weights]
        elif adaptive == "asam":
            T = [np.abs(w) + eta if w.ndim >= 2 else np.ones_like(w) for w in weights]
        else:
            T = [np.ones_like(w) for w in weights]
        norm = np.sqrt(sum(((t * gi) ** 2).sum() for t, gi in zip(T, g, strict=True)))
        moved = [w + rho * t**2 * gi / (norm + TINY) for w, t, gi in zip(weights, T, g, strict=True)]
        _, second = mean_gradient(net, moved, x[part], y[part], row_weights[part])
        result = [r + share * s for r, s in zip(result, second, strict=True)]
        value += share * loss
    return value, result
