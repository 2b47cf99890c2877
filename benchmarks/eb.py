"""Embryoid bodies, 5 principal components, leave one out: each of three inner times is predicted from the others.

W1 is exact optimal transport on all cells. Published: 0.713 +- 0.039 (OT-MFM), the best before WLM.
"""

from _report import leave_one_out, parser, prepare

import wlm

if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    prepare()
    leave_one_out(
        arguments,
        "eb",
        "Embryoid body 5D, leave one out, no velocities",
        wlm.datasets.embryoid_body(),
        "time",
    )
