"""python run.py [PART OF A NAME ...] adds a line per problem to trial.jsonl, and traces/NAME.npz."""
import functools, json, math, os, sys, time
import jax, jax.numpy as jnp, numpy as np, optax
import lawn_optax as lo
from lawn_optax._switches import Switch
HERE = os.path.dirname(os.path.abspath(__file__))
FREE = (0.02, 0.05, 0.10, 0.20, 0.40)
LONGEST = 10**9
CACHE = {}

def shape(kind, n):
    if kind == 'const': return lambda t: jnp.ones_like(t, jnp.float32)
    if kind == 'cos': return lambda t: 0.5 * (1 + jnp.cos(jnp.pi * t / n))
    if kind == 'wld':
        w = max(1, n // 10)
        return lambda t: jnp.minimum((t + 1) / w, (n - t) / (n - w))

def losses(kind, logits, y):
    if kind == 'ce': return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    if kind == 'ls': return optax.softmax_cross_entropy(logits, 0.9 * jax.nn.one_hot(y, logits.shape[-1]) + 0.1 / logits.shape[-1]).mean()
    if kind == 'bce': return optax.sigmoid_binary_cross_entropy(logits, y.astype(jnp.float32)).mean()
    if kind == 'mse': return ((logits - y) ** 2).mean()

def score(kind, logits, y):
    """Return the per-batch score in percent."""
    if kind in ('ce', 'ls'): return 100 * (logits.argmax(-1) == y).mean()
    if kind == 'bce': return 100 * ((logits > 0) == (y > 0.5)).mean()
    if kind == 'bal':
        p = logits.argmax(-1)
        return 50 * (((p == 1) & (y == 1)).sum() / jnp.maximum((y == 1).sum(), 1) + ((p == 0) & (y == 0)).sum() / jnp.maximum((y == 0).sum(), 1))
    if kind == 'mse': return 100 * (1 - ((logits - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())

def big(tree): return [x for x in jax.tree.leaves(tree) if x.ndim >= 2]

def make(p):
    n, chunks = p['updates'], 10
    n = p['updates'] = n // chunks * chunks
    init, apply, kind = p['model'][0], p['model'][1], p['loss']
    metric = p.get('metric', kind)
    auto = lo.at_flattening()
    def train(key, data, idx, lr, mode, nfree):
        xtr, ytr, xte, yte = data
        def sw_update(c, s, e):
            con, s = auto.update(c, s, e)
            return jnp.where(mode, con, c >= nfree), s
        sw = Switch(auto.init, sw_update, ('gradient_norm',), lambda s: mode & auto.marked(s))
        sh = shape(p['sched'], n)
        tx = lo.adam_lawn(lambda t: lr * sh(t), sw)
        params = init(key)
        state = tx.init(params)
        def step(carry, it):
            params, state = carry
            i, t = it
            x, y = jnp.take(xtr, i, 0), jnp.take(ytr, i, 0)
            k = jax.random.fold_in(key, t) if p.get('stochastic') else None
            def f(params):
                z = apply(params, x, k)
                return losses(kind, z, y), z
            (L, z), g = jax.value_and_grad(f, has_aux=True)(params)
            gn = jnp.sqrt(sum(jnp.sum(a * a) for a in big(g)))
            wg = sum(jnp.vdot(a, b) for a, b in zip(big(params), big(g)))
            wn = jnp.stack([jnp.sqrt(jnp.sum(a * a)) for a in big(params)])
            u, state = tx.update(g, state, params, value=L)
            out = (L, gn, wg, score(kind, z, y), jnp.log(wn).mean())
            return (optax.apply_updates(params, u), state), out
        def chunk(carry, it):
            carry, out = jax.lax.scan(step, carry, it)
            te = apply(carry[0], xte, None)
            return carry, (out, score(metric, te, yte), losses(kind, te, yte))
        it = (idx.reshape(chunks, n // chunks, -1), jnp.arange(n).reshape(chunks, -1))
        (params, state), (out, te, tel) = jax.lax.scan(chunk, (params, state), it)
        m = min(len(xtr), 2000)
        ztr = apply(params, xtr[:m], None)
        out = jax.tree.map(lambda a: a.reshape(n), out)
        mk = state.switch.mark
        return dict(trace=out, test=te, testloss=tel, trl=losses(kind, ztr, ytr[:m]), tra=score(kind, ztr, ytr[:m]),
                    con=state.constrained_steps, mark=mk.at, made=mk.made, valley=mk.of_valley)
    def over(keys, data, idx, lr, mode, nfree):
        f = lambda a: train(a[0], a[1], a[2], lr, mode, nfree)
        if p.get('map'): return jax.lax.map(f, (keys, data, idx))
        return jax.vmap(lambda *a: f(a))(keys, data, idx)
    return jax.jit(over)

def indices(rng, ntr, batch, n):
    if batch is None or batch >= ntr: return np.tile(np.arange(ntr), (n, 1))
    out, per = [], ntr // batch
    while len(out) < n:
        q = rng.permutation(ntr)[:per * batch].reshape(per, batch)
        out.extend(q)
    return np.stack(out[:n])

def run(p):
    t0 = time.time()
    S = p.get('seeds', 4)
    n = p['updates'] = p['updates'] // 10 * 10
    ck = (p['model'], p['loss'], p.get('metric'), n, p['sched'], p.get('stochastic'), p.get('map'))
    f = CACHE.get(ck) or CACHE.setdefault(ck, make(p))
    data = [p['data'](np.random.default_rng(1000 + s)) for s in range(S)]
    idx = np.stack([indices(np.random.default_rng(s), len(d[0]), p['batch'], n) for s, d in enumerate(data)]).astype(np.int32)
    data = tuple(np.stack([np.asarray(d[j], np.float32 if np.asarray(d[j]).dtype.kind == 'f' else np.int32) for d in data]) for j in range(4))
    data, idx = jax.tree.map(jnp.asarray, (data, idx))
    keys = jax.random.split(jax.random.key(p.get('key', 7)), S)
    call = lambda lr, mode, nf: jax.device_get(f(keys, data, idx, jnp.float32(lr), jnp.bool_(mode), jnp.int32(nf)))
    adam, autom = {}, {}
    for lr in p['lrs']:
        adam[lr] = call(lr, False, LONGEST)
        if lr == p['lrs'][0]: print(p['name'], 'first call', round(time.time() - t0, 1), flush=True)
        autom[lr] = call(lr, True, 0)
    last = lambda r: r['test'][:, -1]
    best = max(adam, key=lambda lr: np.nan_to_num(last(adam[lr]), nan=-1e9).mean())
    free = {fr: call(best, False, max(1, round(fr * n))) for fr in p.get('free', FREE)}
    def stat(a, b):
        d = last(b) - last(a)
        return round(float(d.mean()), 2), round(float(d.std(ddof=1) / math.sqrt(S)), 2)
    a, u = adam[best], autom[best]
    def where(u):
        con = [round(float((n - c) / n), 4) if c else None for c in u['con']]
        mark = [round(float(m / n), 4) if k else None for m, k in zip(u['mark'], u['made'])]
        return dict(constrain=con, mark=mark, of_valley=[bool(v) for v in u['valley']])
    r3 = lambda x: [round(float(v), 3) for v in x]
    res = dict(name=p['name'], batch=p['batch'] or len(data[0][0]), ntrain=int(data[0].shape[1]), updates=n, sched=p['sched'], lr=best,
        adam=round(float(last(a).mean()), 2), adam_se=round(float(last(a).std(ddof=1) / math.sqrt(S)), 2),
        auto=round(float(last(u).mean()), 2), diff=stat(a, u), **where(u),
        free={fr: stat(a, r) for fr, r in free.items()},
        adam_trl=round(float(a['trl'].mean()), 4), adam_tra=round(float(a['tra'].mean()), 2),
        auto_trl=round(float(u['trl'].mean()), 4), auto_tra=round(float(u['tra'].mean()), 2),
        adam_curve=r3(a['test'].mean(0)), auto_curve=r3(u['test'].mean(0)),
        adam_testloss=round(float(a['testloss'][:, -1].mean()), 4), auto_testloss=round(float(u['testloss'][:, -1].mean()), 4),
        per_seed=[r3(last(a)), r3(last(u))],
        other_lrs={lr: dict(adam=round(float(last(adam[lr]).mean()), 2), diff=stat(adam[lr], autom[lr]), **where(autom[lr])) for lr in adam if lr != best},
        secs=round(time.time() - t0, 1))
    with open(f'{HERE}/trial.jsonl', 'a') as h: h.write(json.dumps(res) + '\n')
    tr = {}
    for lr in adam:
        for nm, r in (('adam', adam[lr]), ('auto', autom[lr])):
            for q, arr in zip(('loss', 'gnorm', 'wg', 'batchscore', 'meanlognorm'), r['trace']): tr[f'{nm}_{lr}_{q}'] = arr.astype(np.float32)
            tr[f'{nm}_{lr}_test'] = r['test']; tr[f'{nm}_{lr}_con'] = r['con']; tr[f'{nm}_{lr}_mark'] = r['mark']; tr[f'{nm}_{lr}_made'] = r['made']
    for q, arr in zip(('loss', 'gnorm'), adam[best]['trace']): tr[q] = arr.astype(np.float32)
    tr.update(best_lr=best, free_fracs=np.array(list(free)), free_test=np.stack([last(r) for r in free.values()]), adam_test=last(a), auto_test=last(u))
    np.savez_compressed(f"{HERE}/traces/{p['name']}.npz", **tr)
    bf = max(res['free'].items(), key=lambda kv: kv[1][0])
    print(f"{p['name']:28s} lr {best} adam {res['adam']} auto {res['auto']} diff {res['diff']} bestfree {bf} mark {res['mark']} con {res['constrain']} trl {res['adam_trl']} {res['secs']}s", flush=True)

if __name__ == '__main__':
    import problems
    os.makedirs(f'{HERE}/traces', exist_ok=True)
    done = {json.loads(l)['name'] for l in open(f'{HERE}/trial.jsonl')} if os.path.exists(f'{HERE}/trial.jsonl') else set()
    stop = float(os.environ.get('STOP', 1e18))
    for p in problems.TABLE:
        if p['name'] in done or (len(sys.argv) > 1 and not any(a in p['name'] for a in sys.argv[1:])): continue
        if time.time() > stop: break
        try: run(dict(p))
        except Exception as e:
            import traceback; print(p['name'], 'ERROR', repr(e)[:600], flush=True); traceback.print_exc()
