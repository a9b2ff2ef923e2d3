import functools
import jax, jax.numpy as jnp, numpy as np
import os
HERE = os.path.dirname(os.path.abspath(__file__))
N = lambda k, s, sd: sd * jax.random.normal(k, s)
ACT = dict(relu=jax.nn.relu, tanh=jnp.tanh, gelu=jax.nn.gelu)

# ---- models: (init(key), apply(params, x, key)) ----
@functools.cache
def mlp(sizes, act='relu', drop=0.0, noise=0.0, pre=None):
    a = ACT[act]; g = 1.0 if act == 'tanh' else 2.0
    L = len(sizes) - 1
    def init(key):
        ks = jax.random.split(key, L)
        return {f'd{i}': {'kernel': N(ks[i], (sizes[i], sizes[i+1]), np.sqrt((g if i < L-1 else 1.0) / sizes[i])), 'bias': jnp.zeros(sizes[i+1])} for i in range(L)}
    def apply(p, x, key):
        x = x.reshape(len(x), -1)
        if noise and key is not None: x = x + noise * jax.random.normal(jax.random.fold_in(key, 99), x.shape)
        for i in range(L):
            x = x @ p[f'd{i}']['kernel'] + p[f'd{i}']['bias']
            if i < L - 1:
                x = a(x)
                if drop and key is not None: x = x * jax.random.bernoulli(jax.random.fold_in(key, i), 1 - drop, x.shape) / (1 - drop)
        return x
    return init, apply

def ln(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p['g'] + p['b']
def lnp(d): return {'g': jnp.ones(d), 'b': jnp.zeros(d)}

def resmlp(din, d, blocks, dout):
    def init(key):
        ks = iter(jax.random.split(key, 2 * blocks + 2))
        p = {'inp': N(next(ks), (din, d), din**-.5), 'head': N(next(ks), (d, dout), d**-.5), 'lnf': lnp(d)}
        for i in range(blocks): p[f'b{i}'] = {'up': N(next(ks), (d, 2*d), (2/d)**.5), 'down': N(next(ks), (2*d, d), (.5/d)**.5 / blocks**.5), 'ln': lnp(d)}
        return p
    def apply(p, x, key):
        x = x.reshape(len(x), -1) @ p['inp']
        for i in range(blocks):
            b = p[f'b{i}']; x = x + jax.nn.gelu(ln(x, b['ln']) @ b['up']) @ b['down']
        return ln(x, p['lnf']) @ p['head']
    return init, apply

def transformer(vocab, T, d, layers, dout, heads=2, out='all', causal=False, patch=None, tied=False):
    def init(key):
        ks = iter(jax.random.split(key, 6 * layers + 4))
        p = {'embed': N(next(ks), (patch or vocab, d), (patch**-.5 if patch else (0.1 if tied else 1.0)))}
        p['pos'] = N(next(ks), (T, d), 0.1 if tied else .3); p['lnf'] = lnp(d)
        if not tied: p['head'] = N(next(ks), (d, dout), d**-.5)
        for i in range(layers): p[f'b{i}'] = {**{n: N(next(ks), (d, d), d**-.5) for n in 'qkv'}, 'o': N(next(ks), (d, d), d**-.5/2), 'up': N(next(ks), (d, 2*d), (2/d)**.5), 'down': N(next(ks), (2*d, d), (2*d)**-.5/2), 'l1': lnp(d), 'l2': lnp(d)}
        return p
    def apply(p, x, key):
        x = (x @ p['embed'] if patch else jax.nn.one_hot(x, vocab) @ p['embed']) + p['pos']
        B = len(x)
        for i in range(layers):
            b = p[f'b{i}']; h = ln(x, b['l1'])
            q, k, v = ((h @ b[n]).reshape(B, T, heads, d // heads) for n in 'qkv')
            s = jnp.einsum('bthd,bshd->bhts', q, k) / (d // heads)**.5
            if causal: s = jnp.where(np.tril(np.ones((T, T), bool)), s, -1e9)
            x = x + jnp.einsum('bhts,bshd->bthd', jax.nn.softmax(s), v).reshape(B, T, d) @ b['o']
            x = x + jax.nn.gelu(ln(x, b['l2']) @ b['up']) @ b['down']
        x = ln(x, p['lnf'])
        if out == 'mean': x = x.mean(1)
        if out == 'last': x = x[:, -1]
        return x @ (p['embed'].T if tied else p['head'])
    return init, apply

def gru(vocab, d, dout):
    def init(key):
        k = jax.random.split(key, 4)
        return {'embed': N(k[0], (vocab, 3*d), .5), 'rec': N(k[1], (d, 2*d), d**-.5), 'recn': N(k[2], (d, d), d**-.5), 'bias': jnp.zeros(3*d), 'head': N(k[3], (d, dout), d**-.5)}
    def apply(p, x, key):
        e = jax.nn.one_hot(x, vocab) @ p['embed'] + p['bias']
        h0 = jnp.zeros((len(x), d))
        def f(h, e):
            z, r = jnp.split(jax.nn.sigmoid(e[:, :2*d] + h @ p['rec']), 2, -1)
            n = jnp.tanh(e[:, 2*d:] + (r * h) @ p['recn'])
            return z * h + (1 - z) * n, None
        h, _ = jax.lax.scan(f, h0, e.swapaxes(0, 1))
        return h @ p['head']
    return init, apply

def modmlp(P, d, h, opn=None):
    def init(key):
        k = jax.random.split(key, 4)
        return {'embed': N(k[0], (2, P, d), .3), 'd0': {'kernel': N(k[1], (2*d, h), (1/d)**.5), 'bias': jnp.zeros(h)}, 'd1': {'kernel': N(k[2], (h, P), h**-.5), 'bias': jnp.zeros(P)}}
    def apply(p, x, key):
        e = jnp.concatenate([jax.nn.one_hot(x[:, i], P) @ p['embed'][i] for i in (0, 1)], -1)
        return jax.nn.relu(e @ p['d0']['kernel'] + p['d0']['bias']) @ p['d1']['kernel'] + p['d1']['bias']
    return init, apply

def mf(U, I, d, sd=0.1):
    def init(key):
        k = jax.random.split(key)
        return {'user': N(k[0], (U, d), sd), 'item': N(k[1], (I, d), sd), 'ub': jnp.zeros(U), 'ib': jnp.zeros(I)}
    def apply(p, x, key):
        a, b = jax.nn.one_hot(x[:, 0], U), jax.nn.one_hot(x[:, 1], I)
        return ((a @ p['user']) * (b @ p['item'])).sum(-1) + a @ p['ub'] + b @ p['ib']
    return init, apply

def distmult(E, R, d, sd=0.2):
    def init(key):
        k = jax.random.split(key)
        return {'ent': N(k[0], (E, d), sd), 'rel': 1 + N(k[1], (R, d), sd), 'out': N(jax.random.fold_in(key, 5), (E, d), sd)}
    def apply(p, x, key):
        return ((jax.nn.one_hot(x[:, 0], E) @ p['ent']) * (jax.nn.one_hot(x[:, 1], R) @ p['rel'])) @ p['out'].T
    return init, apply

def bow(V, d, C, sd=0.1):
    def init(key):
        k = jax.random.split(key)
        return {'embed': N(k[0], (V, d), sd), 'head': N(k[1], (d, C), d**-.5), 'bias': jnp.zeros(C)}
    def apply(p, x, key): return jax.nn.tanh(x @ p['embed']) @ p['head'] + p['bias']
    return init, apply

def cnn(c, ch, C, bn=False, side=8):
    def init(key):
        k = jax.random.split(key, 4); f = lambda k, i, o: N(k, (3, 3, i, o), (2/(9*i))**.5)
        p = {'c0': f(k[0], c, ch), 'c1': f(k[1], ch, 2*ch), 'c2': f(k[2], 2*ch, 2*ch), 'head': N(k[3], (2*ch, C), (2*ch)**-.5), 'hb': jnp.zeros(C)}
        for i, m in enumerate((ch, 2*ch, 2*ch)): p[f'n{i}'] = lnp(m)
        return p
    def apply(p, x, key):
        for i in range(3):
            x = jax.lax.conv_general_dilated(x, p[f'c{i}'], (1, 1) if i == 0 else (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
            if bn:
                m = x.mean((0, 1, 2)); v = x.var((0, 1, 2)); x = (x - m) * jax.lax.rsqrt(v + 1e-5) * p[f'n{i}']['g']
            x = jax.nn.relu(x + p[f'n{i}']['b'])
        return x.mean((1, 2)) @ p['head'] + p['hb']
    return init, apply

def mixer(Tn, pd, d, blocks, C):
    def init(key):
        ks = iter(jax.random.split(key, 4*blocks + 2))
        p = {'inp': N(next(ks), (pd, d), pd**-.5), 'head': N(next(ks), (d, C), d**-.5), 'lnf': lnp(d)}
        for i in range(blocks): p[f'b{i}'] = {'t1': N(next(ks), (Tn, 2*Tn), (2/Tn)**.5), 't2': N(next(ks), (2*Tn, Tn), (.5/Tn)**.5/2), 'up': N(next(ks), (d, 2*d), (2/d)**.5), 'down': N(next(ks), (2*d, d), (.5/d)**.5/2), 'l1': lnp(d), 'l2': lnp(d)}
        return p
    def apply(p, x, key):
        x = x @ p['inp']
        for i in range(blocks):
            b = p[f'b{i}']
            x = x + (jax.nn.gelu(ln(x, b['l1']).swapaxes(1, 2) @ b['t1']) @ b['t2']).swapaxes(1, 2)
            x = x + jax.nn.gelu(ln(x, b['l2']) @ b['up']) @ b['down']
        return ln(x, p['lnf']).mean(1) @ p['head']
    return init, apply

def gcn(A, X, h, C):
    A, X = jnp.asarray(A, jnp.float32), jnp.asarray(X, jnp.float32)
    AX = A @ X
    def init(key):
        k = jax.random.split(key); return {'w0': N(k[0], (X.shape[1], h), (2/X.shape[1])**.5), 'w1': N(k[1], (h, C), h**-.5), 'b0': jnp.zeros(h), 'b1': jnp.zeros(C)}
    def apply(p, x, key): return (A[x] @ jax.nn.relu(AX @ p['w0'] + p['b0'])) @ p['w1'] + p['b1']
    return init, apply

# ---- data: f(rng) -> xtr, ytr, xte, yte ----
def std(xtr, xte): m, s = xtr.mean(0), xtr.std(0) + 1e-6; return (xtr - m) / s, (xte - m) / s
def flip(rng, y, share, C):
    y = y.copy(); m = rng.random(len(y)) < share; y[m] = rng.integers(0, C, m.sum()); return y
def bundled(name, ntrain, noise=0.0, reg=False):
    def f(rng):
        from sklearn import datasets
        X, y = getattr(datasets, f'load_{name}')(return_X_y=True)
        q = rng.permutation(len(X)); X, y = X[q], y[q]
        if reg: y = (y - y.mean()) / y.std(); y = y[:, None].astype(np.float32)
        xtr, xte = std(X[:ntrain], X[ntrain:]); ytr = y[:ntrain]
        if noise: ytr = flip(rng, ytr, noise, y.max() + 1)
        return xtr, ytr, xte, y[ntrain:]
    return f
def sk(maker, ntr, nte=2000, q=None, reg=False, noise=0.0, **kw):
    def f(rng):
        from sklearn import datasets
        X, y = getattr(datasets, maker)(n_samples=ntr + nte, random_state=int(rng.integers(1 << 30)), **kw)
        if q: y = np.digitize(y, np.quantile(y, np.arange(1, q) / q))
        if reg: y = ((y - y.mean()) / y.std())[:, None].astype(np.float32)
        xtr, xte = std(X[:ntr], X[ntr:]); ytr = y[:ntr]
        if noise: ytr = flip(rng, ytr, noise, y.max() + 1)
        return xtr, ytr, xte, y[ntr:]
    return f
def teacher(ntr, C=10, d=20, h=16, noise=0.0, nte=3000, multi=False, imb=None, hard=3.0):
    def f(rng):
        X = rng.normal(size=(ntr + nte, d)); W = rng.normal(size=(d, h)) / d**.5 * hard
        Z = np.tanh(X @ W + rng.normal(size=h)) @ rng.normal(size=(h, C)); Z = (Z - Z.mean(0)) / Z.std(0)
        if multi: y = (Z > 0.8).astype(np.int32)
        elif imb: y = (Z[:, 0] > np.quantile(Z[:, 0], 1 - imb)).astype(int)
        else: y = Z.argmax(1)
        ytr = y[:ntr]
        if noise: ytr = (ytr ^ (rng.random(ytr.shape) < noise)) if multi else flip(rng, ytr, noise, C)
        return X[:ntr], ytr, X[ntr:], y[ntr:]
    return f
@functools.cache
def cifar(side):
    raw = np.concatenate([np.fromfile(f'{HERE}/cifar/cifar-10-batches-bin/{n}.bin', np.uint8).reshape(-1, 3073) for n in ('data_batch_1', 'data_batch_2', 'test_batch')])
    y = raw[:, 0].astype(int); X = raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).astype(np.float32)
    k = 32 // side; X = X.reshape(-1, side, k, side, k, 3).mean((2, 4))
    m, s = X[:20000].mean((0, 1, 2)), X[:20000].std((0, 1, 2))
    return (X - m) / s, y
def cif(ntr, side=8, noise=0.0, classes=10, patch=None, nte=3000, gray=False, binary=None):
    def f(rng):
        X, y = cifar(side)
        if binary: y = np.isin(y, binary).astype(int)
        if gray: X = X.mean(-1, keepdims=True)
        if patch:
            g = side // patch; X = X.reshape(-1, g, patch, g, patch, X.shape[-1]).swapaxes(2, 3).reshape(len(X), g*g, -1)
        q = rng.permutation(20000)[:ntr]; ytr = y[q]
        if noise: ytr = flip(rng, ytr, noise, 10)
        return X[q], ytr, X[20000:20000+nte], y[20000:20000+nte]
    return f
def autoenc(ntr, bern=False):
    def f(rng):
        X, _ = cifar(8); X = X.mean(-1).reshape(len(X), -1); q = rng.permutation(20000)[:ntr]
        Y = (X > 0).astype(np.int32) if bern else X
        return X[q], Y[q], X[20000:22000], Y[20000:22000]
    return f
def modular(P, op, share):
    def f(rng):
        a, b = np.divmod(np.arange(P * P), P); X = np.stack([a, b], 1)
        if op == 'add': y = (a + b) % P
        if op == 'mul': y = a * b % P
        if op == 'div': X = X[b > 0]; a, b = X.T; y = np.array([i * pow(int(j), P - 2, P) % P for i, j in zip(a, b)])
        if op == 'x2y': y = (a * a + a * b + b * b) % P
        q = rng.permutation(len(X)); n = int(share * len(X)); return X[q[:n]], y[q[:n]], X[q[n:]], y[q[n:]]
    return f
def seqs(task, ntr, T, V, nte=1500, noise=0.0):
    def f(rng):
        n = ntr + nte; X = rng.integers(0, V, (n, T))
        if task == 'reverse': y = X[:, ::-1].copy()
        if task == 'sort': y = np.sort(X, 1)
        if task == 'cumsum': y = X.cumsum(1) % V
        if task == 'majority': y = np.array([np.bincount(r, minlength=V).argmax() for r in X])
        if task == 'match': y = (X[:, -1:] == X[:, :-1]).sum(1).clip(0, 3)
        if task == 'dyck':  # balanced or with one swap/flip
            out = []; y = rng.integers(0, 2, n)
            for lab in y:
                s, h = [], 0
                for t in range(T):
                    left = T - t
                    up = h == 0 or (h < left and rng.random() < .5)
                    s.append(0 if up else 1); h += 1 if up else -1
                s = np.array(s)
                if not lab:
                    while True:
                        r = s.copy(); i, j = rng.integers(0, T, 2); r[i], r[j] = r[j], r[i]
                        d = np.cumsum(1 - 2 * r)
                        if d.min() < 0: break
                    s = r
                out.append(s)
            X = np.array(out)
        if task == 'hmm':  # next token of a 3rd-order-ish Markov source, entropy stays
            A = rng.dirichlet(np.full(V, .15), (V, V)); X = np.zeros((n, T + 1), int); X[:, :2] = rng.integers(0, V, (n, 2))
            for t in range(2, T + 1):
                c = A[X[:, t-2], X[:, t-1]].cumsum(1); X[:, t] = (rng.random((n, 1)) > c).sum(1).clip(0, V-1)
            y = X[:, 1:]; X = X[:, :-1]
        ytr = y[:ntr]
        if noise: ytr = flip(rng, ytr, noise, int(y.max()) + 1)
        return X[:ntr], ytr, X[ntr:], y[ntr:]
    return f
def factor(U, I, share, rank=4, noise=0.0):
    def f(rng):
        Z = (rng.normal(size=(U, rank)) @ rng.normal(size=(rank, I))) + .5 * rng.normal(size=(1, I)); Y = (Z + noise * rng.normal(size=Z.shape) > 0).astype(int)
        u, i = np.divmod(np.arange(U * I), I); X = np.stack([u, i], 1); y = Y.ravel(); q = rng.permutation(U * I); n = int(share * U * I)
        return X[q[:n]], y[q[:n]], X[q[n:n+4000]], y[q[n:n+4000]]
    return f
def kg(E, R, share):
    """Entities with 3 hidden attributes; a relation maps attributes by a permutation to a tail among few."""
    def f(rng):
        c = rng.normal(size=(E, 6)); X, y = [], []
        for r in range(R):
            M = rng.normal(size=(6, 6)) / 6**.5; S = (c @ M) @ c.T + .1 * rng.normal(size=(E, E))
            X += [(e, r) for e in range(E)]; y += list(S.argmax(1))
        X, y = np.array(X), np.array(y); q = rng.permutation(len(X)); n = int(share * len(X)); return X[q[:n]], y[q[:n]], X[q[n:]], y[q[n:]]
    return f
def topics(ntr, V=400, C=20, length=15, nte=2000, mix=0.5):
    def f(rng):
        B = rng.dirichlet(np.full(V, .05), C); bg = rng.dirichlet(np.full(V, .3)); n = ntr + nte; y = rng.integers(0, C, n)
        P = mix * B[y] + (1 - mix) * bg; X = np.stack([rng.multinomial(length, p / p.sum()) for p in P.astype(np.float64)]).astype(np.float32)
        return X[:ntr], y[:ntr], X[ntr:], y[ntr:]
    return f
_r = np.random.default_rng(5)
_C = _r.integers(0, 6, 600); _P = np.where(_C[:, None] == _C[None], .03, .006); _A = np.triu(_r.random((600, 600)) < _P, 1); _A = _A + _A.T + np.eye(600); _D = _A.sum(1)**-.5; _A = _D[:, None] * _A * _D
_X = (_r.random((600, 100)) < np.where(_C[:, None] == (np.arange(100) % 6)[None], .08, .04)).astype(float)
def sbm(k):
    def f(rng):
        q = rng.permutation(600); y = _C[q]; return q[:k], y[:k], q[k:], y[k:]
    return f

T = []
def P(name, data, model, loss, batch, updates, lrs, sched='cos', **kw): T.append(dict(name=name, data=data, model=model, loss=loss, batch=batch, updates=updates, lrs=lrs, sched=sched, **kw))
# tabular
P('breast_cancer', bundled('breast_cancer', 300), mlp((30, 64, 64, 2)), 'ce', 32, 1500, (1e-3, 3e-3), seeds=5)
P('breast_cancer_noise20', bundled('breast_cancer', 300, .2), mlp((30, 64, 64, 2)), 'ce', 32, 1500, (1e-3, 3e-3), seeds=5)
P('wine_noise30_full', bundled('wine', 90, .3), mlp((13, 128, 3), 'tanh'), 'ce', None, 600, (1e-3, 1e-2), 'const', seeds=5)
P('iris_lr1e-2_const', bundled('iris', 75), mlp((4, 32, 32, 3)), 'ce', 16, 1000, (3e-3, 1e-2), 'const', seeds=5)
P('mkclass5_b32', sk('make_classification', 1000, n_features=20, n_informative=10, n_classes=5, flip_y=.1), mlp((20, 64, 64, 5)), 'ce', 32, 2500, (1e-3, 3e-3))
P('mkclass5_full', sk('make_classification', 1000, n_features=20, n_informative=10, n_classes=5, flip_y=.1), mlp((20, 64, 64, 5)), 'ce', None, 600, (3e-3, 1e-2))
P('moons_wide_full', sk('make_moons', 150, noise=.3), mlp((2, 256, 256, 2)), 'ce', None, 1000, (1e-3, 1e-2), 'const', seeds=5)
P('circles_b32_wld', sk('make_circles', 300, noise=.15, factor=.6), mlp((2, 64, 64, 2)), 'ce', 32, 2000, (1e-3, 1e-2), 'wld')
P('friedman1_q4', sk('make_friedman1', 500, q=4, noise_=0) if False else sk('make_friedman1', 500, q=4), mlp((10, 64, 64, 4)), 'ce', 32, 2500, (1e-3, 3e-3))
P('friedman2_q5_b256', sk('make_friedman2', 1000, q=5), mlp((4, 64, 64, 5), 'gelu'), 'ce', 256, 1500, (3e-3, 1e-2), 'wld')
P('gauss_n100_d50', sk('make_classification', 100, n_features=50, n_informative=30, n_classes=2, class_sep=1.), mlp((50, 256, 2)), 'ce', 32, 1000, (3e-4, 1e-3, 3e-3), seeds=5)
P('imbalanced_95_5', teacher(1000, imb=.05), mlp((20, 64, 64, 2)), 'ce', 64, 2000, (1e-3, 3e-3), metric='bal', seeds=5)
# teachers
P('teacher_noise0', teacher(1000), mlp((20, 64, 64, 10)), 'ce', 32, 3000, (1e-3, 3e-3))
P('teacher_noise10', teacher(1000, noise=.1), mlp((20, 64, 64, 10)), 'ce', 32, 3000, (1e-3, 3e-3))
P('teacher_noise30', teacher(1000, noise=.3), mlp((20, 64, 64, 10)), 'ce', 32, 3000, (1e-3, 3e-3))
P('teacher_noise30_b256_long', teacher(1000, noise=.3), mlp((20, 64, 64, 10)), 'ce', 256, 2000, (3e-3, 1e-2))
P('teacher_big_1epoch', teacher(96000, nte=3000), mlp((20, 64, 64, 10)), 'ce', 32, 3000, (1e-3, 3e-3, 1e-2))
P('teacher_small_net', teacher(3000, noise=.1), mlp((20, 12, 10)), 'ce', 32, 3000, (3e-3, 1e-2))
P('teacher_labelsmooth', teacher(1000), mlp((20, 64, 64, 10)), 'ls', 32, 3000, (1e-3, 3e-3))
P('teacher_dropout', teacher(1000), mlp((20, 128, 128, 10), drop=.3), 'ce', 32, 3000, (1e-3, 3e-3), stochastic=True)
P('teacher_inputnoise', teacher(1000), mlp((20, 64, 64, 10), noise=.3), 'ce', 32, 3000, (1e-3, 3e-3), stochastic=True)
P('multilabel_noise10', teacher(500, multi=True, noise=.1), mlp((20, 64, 64, 10)), 'bce', 32, 2500, (1e-3, 3e-3))
P('multilabel_clean', teacher(1000, multi=True), mlp((20, 64, 64, 10)), 'bce', 32, 2500, (1e-3, 3e-3))
P('teacher_deepnarrow_tanh', teacher(1000), mlp((20, 24, 24, 24, 24, 24, 24, 10), 'tanh'), 'ce', 32, 3000, (1e-3, 3e-3))
P('teacher_b8_const', teacher(500), mlp((20, 64, 10)), 'ce', 8, 4000, (3e-4, 1e-3), 'const')
# regression: must not misfire
P('reg_friedman1', sk('make_friedman1', 500, reg=True), mlp((10, 64, 64, 1)), 'mse', 32, 2500, (1e-3, 3e-3))
P('reg_diabetes', bundled('diabetes', 250, reg=True), mlp((10, 64, 1)), 'mse', 32, 1500, (1e-3, 3e-3), seeds=5)
P('autoenc_mse', autoenc(1500), mlp((64, 48, 12, 48, 64)), 'mse', 64, 2500, (1e-3, 3e-3))
P('autoenc_bce', autoenc(1500, True), mlp((64, 64, 24, 64, 64)), 'bce', 64, 2500, (1e-3, 3e-3))
# modular
P('modadd31_full', modular(31, 'add', .5), modmlp(31, 24, 96), 'ce', None, 1500, (3e-3, 1e-2), 'const')
P('modmul31_b64', modular(31, 'mul', .6), modmlp(31, 24, 96), 'ce', 64, 2500, (1e-3, 3e-3), 'cos')
P('moddiv23_b64', modular(23, 'div', .7), modmlp(23, 24, 96), 'ce', 64, 2500, (1e-3, 3e-3), 'const')
# factorisation, knowledge graph, bag of words, graphs
P('mf_logistic', factor(150, 150, .2), mf(150, 150, 24), 'bce', 256, 1500, (3e-3, 1e-2), 'const')
P('mf_logistic_noise', factor(150, 150, .2, noise=1.), mf(150, 150, 24, .01), 'bce', 256, 1500, (3e-3, 1e-2), 'cos')
P('kg_distmult', kg(80, 12, .7), distmult(80, 12, 24), 'ce', 64, 2000, (3e-3, 1e-2))
P('topics_bow', topics(600), bow(400, 32, 20), 'ce', 32, 2000, (3e-3, 1e-2))
P('topics_bow_full', topics(600), bow(400, 32, 20), 'ce', None, 400, (3e-3, 1e-2), 'const')
P('sbm_gcn', sbm(60), gcn(_A, _X, 32, 6), 'ce', None, 300, (3e-3, 1e-2), 'const', seeds=5)
# sequences
P('gru_dyck16', seqs('dyck', 800, 16, 2), gru(2, 24, 2), 'ce', 64, 1200, (3e-3, 1e-2))
P('gru_majority', seqs('majority', 800, 9, 4, noise=.1), gru(4, 24, 4), 'ce', 64, 1500, (3e-3, 1e-2))
P('tf_reverse8', seqs('reverse', 400, 8, 10), transformer(10, 8, 24, 1, 10), 'ce', 32, 1200, (1e-3, 3e-3), seeds=3)
P('tf_sort8', seqs('sort', 300, 8, 10), transformer(10, 8, 24, 1, 10), 'ce', 32, 1200, (1e-3, 3e-3), seeds=3)
P('tf_match', seqs('match', 800, 10, 8), transformer(8, 10, 24, 1, 4, out='last'), 'ce', 64, 1000, (1e-3, 3e-3), seeds=3)
P('tf_markov_lm_tied', seqs('hmm', 60, 12, 12), transformer(12, 12, 24, 1, 12, causal=True, tied=True), 'ce', 16, 1200, (1e-3, 3e-3), seeds=3)
P('tf_cumsum_causal', seqs('cumsum', 800, 8, 5), transformer(5, 8, 24, 1, 5, causal=True), 'ce', 32, 1200, (1e-3, 3e-3), seeds=3)
# CIFAR-10, 8x8
P('cifar8_mlp', cif(2000), mlp((192, 64, 64, 10)), 'ce', 64, 1500, (3e-4, 1e-3, 3e-3), nfree=4)
P('cifar8_mlp_noise20', cif(2000, noise=.2), mlp((192, 64, 64, 10)), 'ce', 64, 1500, (3e-4, 1e-3))
P('cifar8_mlp_full_const', cif(1000), mlp((192, 64, 10)), 'ce', None, 300, (1e-3, 3e-3), 'const')
P('cifar8_deepnarrow6', cif(2000), mlp((192, 32, 32, 32, 32, 32, 32, 10)), 'ce', 64, 2000, (1e-3, 3e-3))
P('cifar8_resmlp', cif(1500), resmlp(192, 32, 3, 10), 'ce', 64, 1200, (3e-4, 1e-3), seeds=3)
P('cifar8_linear', cif(1000), mlp((192, 10)), 'ce', 64, 2000, (1e-3, 1e-2), 'const')
P('cifar8_binary', cif(1000, binary=(0, 1, 8, 9)), mlp((192, 64, 1)) if False else mlp((192, 64, 2)), 'ce', 32, 1500, (3e-4, 1e-3))
P('cifar8_mixer', cif(1500, patch=2), mixer(16, 12, 24, 2, 10), 'ce', 64, 800, (1e-3, 3e-3), seeds=3, free=(.05, .1, .2, .4))
P('cifar8_vit', cif(1500, patch=2), transformer(0, 16, 24, 2, 10, out='mean', patch=12), 'ce', 64, 800, (1e-3, 3e-3), seeds=3, free=(.05, .1, .2, .4))
P('cifar8_cnn', cif(1500), cnn(3, 16, 10), 'ce', 64, 900, (3e-3, 1e-2), seeds=3, map=True, free=(.05, .1, .2, .4))
P('cifar8_cnn_bn', cif(1500), cnn(3, 16, 10, bn=True), 'ce', 64, 900, (3e-3, 1e-2), seeds=3, map=True, free=(.05, .1, .2, .4))

# fine-tuning: pretrained on another teacher's task of the same inputs, head fresh
def finetune(sizes, steps=300):
    init0, apply = mlp(sizes)
    def init(key):
        k1, k2, k3 = jax.random.split(key, 3)
        p = init0(k1)
        X = jax.random.normal(k2, (4000, sizes[0])); W = jax.random.normal(k3, (sizes[0], 16)) / sizes[0]**.5 * 3
        y = (jnp.tanh(X @ W) @ jax.random.normal(jax.random.fold_in(k3, 1), (16, sizes[-1]))).argmax(1)
        import optax
        tx = optax.adam(3e-3)
        def step(c, t):
            p, s = c; i = jax.random.randint(jax.random.fold_in(k2, t), (64,), 0, 4000)
            g = jax.grad(lambda p: optax.softmax_cross_entropy_with_integer_labels(apply(p, X[i], None), y[i]).mean())(p)
            u, s = tx.update(g, s); return (optax.apply_updates(p, u), s), None
        (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), jnp.arange(steps))
        L = f'd{len(sizes) - 2}'
        return {**p, L: init0(key)[L]}
    return init, apply
P('finetune_teacher', teacher(600, noise=.1), finetune((20, 64, 64, 10), 1500), 'ce', 32, 2000, (1e-3, 3e-3))
P('teacher_oldhead_finetune_same', teacher(600, noise=.1), finetune((20, 64, 64, 10), 0), 'ce', 32, 2000, (1e-3, 3e-3))
# large initial logits: head and layers x3
def loud(sizes, f):
    i0, a = mlp(sizes)
    return (lambda key: jax.tree.map(lambda x: f * x, i0(key))), a
P('teacher_loud_init', teacher(1000), loud((20, 64, 64, 10), 2.0), 'ce', 32, 2000, (1e-3, 3e-3))
P('teacher_quiet_init', teacher(1000), loud((20, 64, 64, 10), 0.3), 'ce', 32, 2000, (1e-3, 3e-3))
first = ['modadd', 'kg_', 'gru_dyck', 'cifar8_mlp', 'mf_logistic', 'teacher_noise', 'topics_bow', 'sbm', 'moddiv', 'reg_fri', 'multilabel_noise', 'teacher_big', 'teacher_small', 'teacher_deep', 'imbal', 'cifar8_deep', 'tf_rev', 'tf_markov', 'friedman1', 'cifar8_linear', 'autoenc_mse', 'gauss', 'teacher_b8', 'finetune', 'tf_match', 'gru_maj', 'modmul', 'cifar8_bin', 'autoenc_bce', 'teacher_label', 'teacher_input', 'tf_cumsum', 'cifar8_vit', 'cifar8_cnn', 'tf_sort', 'cifar8_resmlp', 'teacher_drop', 'friedman2', 'multilabel_clean', 'cifar8_mixer']
rank = lambda p: next((i for i, f in enumerate(first) if p['name'].startswith(f)), 99)
T = [p for p in T if p['name'] not in ('teacher_oldhead_finetune_same', 'topics_bow_full')]
TABLE = sorted(T, key=rank)

# what was added to find where it fails
X = []
def Q(name, data, model, loss, batch, updates, lrs, sched='cos', **kw): X.append(dict(name=name, data=data, model=model, loss=loss, batch=batch, updates=updates, lrs=lrs, sched=sched, **kw))
def longtail(ntr, C=20, d=20):
    def f(rng):
        M = rng.normal(size=(C, 2, d)) * .9; pr = 1 / np.arange(1, C + 1); pr /= pr.sum()
        def draw(n, p): y = rng.choice(C, n, p=p); return M[y, rng.integers(0, 2, n)] + rng.normal(size=(n, d)), y
        a, b = draw(ntr, pr); c, e = draw(3000, np.full(C, 1 / C)); return a, b, c, e
    return f
def sine1d(ntr, freq, noise=0.0):
    def f(rng):
        x = rng.uniform(-1, 1, (ntr + 3000, 2)); y = (np.sin(freq * x[:, 0] + 3 * x[:, 1]) + .3 * x[:, 1] > 0).astype(int)
        ytr = y[:ntr]
        if noise: ytr = flip(rng, ytr, noise, 2)
        return x[:ntr], ytr, x[ntr:], y[ntr:]
    return f
def easyhard(ntr):
    """8 classes: 4 linear groups (easy) times the sign of a product of two coordinates (hard)."""
    def f(rng):
        x = rng.normal(size=(ntr + 3000, 12)); y = 4 * (x[:, 0] * x[:, 1] * x[:, 2] > 0) + 2 * (x[:, 3] > 0) + (x[:, 4] > 0); return x[:ntr], y[:ntr], x[ntr:], y[ntr:]
    return f
Q('fresh_teacher_hard', teacher(96000, hard=6.), mlp((20, 64, 64, 10)), 'ce', 32, 3000, (3e-3, 1e-2))
Q('easyhard_n2000', easyhard(2000), mlp((12, 64, 64, 8)), 'ce', 32, 3000, (1e-3, 3e-3))
Q('easyhard_fresh', easyhard(64000), mlp((12, 64, 64, 8)), 'ce', 32, 3000, (3e-3, 1e-2))
Q('sine_freq12', sine1d(1000, 12), mlp((2, 64, 64, 2)), 'ce', 32, 3000, (3e-3, 1e-2))
Q('sine_freq25_const', sine1d(1000, 25), mlp((2, 64, 64, 2)), 'ce', 32, 3000, (3e-3, 1e-2), 'const')
Q('mf_rank2_underfit', factor(150, 150, .3), mf(150, 150, 2), 'bce', 256, 1500, (3e-3, 1e-2), 'cos')
Q('longtail20', longtail(1500), mlp((20, 64, 64, 20)), 'ce', 32, 2500, (1e-3, 3e-3))
Q('modadd31_embsmall_b32_lowdim', modular(31, 'add', .8), modmlp(31, 8, 32), 'ce', 32, 3000, (3e-3, 1e-2), 'cos')
Q('teacher_lr3e-4_short', teacher(1000, noise=.1), mlp((20, 64, 64, 10)), 'ce', 32, 300, (3e-4, 1e-3), 'const')
Q('cifar8_short_3epochs', cif(4000), mlp((192, 64, 64, 10)), 'ce', 32, 370, (3e-4, 1e-3), 'wld')
Q('kg_underfit', kg(80, 12, .7), distmult(80, 12, 6), 'ce', 64, 2000, (3e-3, 1e-2))
Q('gru_cumsum_parity6', seqs('cumsum', 1500, 6, 3), transformer(3, 6, 24, 2, 3, causal=True), 'ce', 64, 1000, (1e-3, 3e-3), seeds=3)
def gcnd(n, C, F, inn, outp, fi, fo, seed):
    r = np.random.default_rng(seed)
    c = r.integers(0, C, n); A = np.triu(r.random((n, n)) < np.where(c[:, None] == c[None], inn, outp), 1); A = A + A.T + np.eye(n); D = A.sum(1)**-.5
    Xf = (r.random((n, F)) < np.where(c[:, None] == (np.arange(F) % C)[None], fi, fo)).astype(float)
    return c, D[:, None] * A * D, Xf
_c2, _A2, _X2 = gcnd(800, 7, 140, .03, .004, .12, .04, 9)
def sbm2(k):
    def f(rng): q = rng.permutation(800); y = _c2[q]; return q[:k], y[:k], q[k:], y[k:]
    return f
Q('gcn_easier_140lab', sbm2(140), gcn(_A2, _X2, 16, 7), 'ce', None, 300, (3e-3, 1e-2), 'const', seeds=5)
Q('topics_hard_n400', topics(400, mix=.25), bow(400, 32, 20), 'ce', 32, 1500, (3e-3, 1e-2), 'cos')
Q('topics_n2000_init1', topics(2000, mix=.3), bow(400, 32, 20, 1.0), 'ce', 32, 1500, (3e-3, 1e-2), 'cos')
Q('topics_noise20', lambda rng: (lambda d: (d[0], flip(rng, d[1], .2, 20), d[2], d[3]))(topics(800)(rng)), bow(400, 32, 20), 'ce', 32, 1500, (3e-3, 1e-2), 'cos')
Q('topics_mlp_he', topics(600), mlp((400, 64, 20)), 'ce', 32, 1500, (1e-3, 3e-3), 'cos')
TABLE += X
