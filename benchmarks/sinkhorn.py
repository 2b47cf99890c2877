"""Our Sinkhorn loss against geomloss, side by side: time of value and gradient, and error of the gradient.

Shapes are batches of (times, cells, dimensions) drawn from the embryoid bodies. The error is one minus the cosine
to the gradient of geomloss with scaling 0.99; times are medians of five runs on one thread.
"""

import geomloss
import pandas as pd
import torch
from _report import machine, parser, prepare, timed

import wlm
from wlm.core.divergences import self_term, sinkhorn_loss
from wlm.core.snapshots import median_distance


def main() -> None:
    arguments = parser(__doc__).parse_args()
    prepare()
    adata = wlm.datasets.embryoid_body()
    day, z = adata.obs["time"].to_numpy(), torch.tensor(adata.obsm["X_pca"])
    generator = torch.Generator().manual_seed(0)
    populations = [z[day == t] for t in range(5)]
    populations = [x[torch.randperm(len(x), generator=generator)] for x in populations]
    median = median_distance(populations, generator)
    repeat = 1 if arguments.quick else 5
    rows = []
    for n in (256,) if arguments.quick else (256, 1024):
        for p, share in ((2, 0.5), (2, 0.2), (2, 0.1), (1, 0.5), (1, 0.1)):
            blur = share * median
            x = torch.stack([population[:n] for population in populations[:4]]).requires_grad_()
            y = torch.stack([population[:n] for population in populations[1:]])

            def ours(x=x, y=y, p=p, blur=blur):
                loss = sinkhorn_loss(x, y, p=p, blur=blur)[0] + self_term(y, p=p, blur=blur)
                return torch.autograd.grad(loss.sum(), x)[0]

            def theirs(scaling, x=x, y=y, p=p, blur=blur):
                loss = geomloss.SamplesLoss("sinkhorn", p=p, blur=blur, scaling=scaling, backend="tensorized")(x, y)
                return torch.autograd.grad(loss.sum(), x)[0]

            _, exact = timed(lambda: theirs(0.99), 1)
            error = lambda g: 1 - torch.cosine_similarity(g.flatten(), exact.flatten(), dim=0).item()  # noqa: B023, E731
            t_ours, g_ours = timed(ours, repeat)
            row = {
                "shape": f"4 x {n} x 5",
                "p": p,
                "blur/median": share,
                "ours, ms": 1e3 * t_ours,
                "error": error(g_ours),
            }
            for scaling in (0.9, 0.5):
                t, g = timed(lambda: theirs(scaling), repeat)  # noqa: B023
                row |= {f"geomloss {scaling}, x": t / t_ours, f"error {scaling}": error(g)}
            rows.append(row)
    print(f"Sinkhorn divergence, value and gradient\n{machine()}")
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:.3g}"))


if __name__ == "__main__":
    main()
