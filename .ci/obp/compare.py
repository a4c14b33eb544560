"""Estimates of `tandem feedback report`, made again by the Open Bandit Pipeline.

usage: compare.py DATASET REPORT

DATASET is what `tandem feedback obp` wrote, REPORT what `tandem feedback report --json` printed of the
same days. obp is imported as it is installed, or from PYTHONPATH. Its estimators need numpy, pandas (below 3)
and scikit-learn; torch, which they only name in types, is stood in for where it is not here.
"""

import json
import logging
import platform
import sys
import types

CLOSE = 1e-9


def stand_in_for_torch():
    """obp names torch in annotations, and uses it for estimates of tensors only."""

    class Anything(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for name in ["torch", "torch.nn", "torch.nn.functional", "torch.optim", "torch.utils", "torch.utils.data"]:
        sys.modules[name] = Anything(name)
        above, _, last = name.rpartition(".")
        if above:
            setattr(sys.modules[above], last, sys.modules[name])


def main(dataset, report):
    import numpy

    try:
        import torch

        tensors = f"torch {torch.__version__}"
    except ImportError:
        stand_in_for_torch()
        tensors = "no torch"
    import pandas
    import sklearn
    from obp.dataset import OpenBanditDataset
    from obp.ope import DoublyRobust, InverseProbabilityWeighting, SelfNormalizedInverseProbabilityWeighting
    from obp.version import __version__ as version

    print(f"obp {version}, Python {platform.python_version()}, numpy {numpy.__version__}, pandas {pandas.__version__}, scikit-learn {sklearn.__version__}, {tensors}")
    logging.disable()
    log = OpenBanditDataset(behavior_policy="bts", campaign="all", data_path=dataset)
    feedback = log.obtain_batch_bandit_feedback()
    rows = log.data  # in the order of the feedback
    n, actions, places = log.n_rounds, log.n_actions, log.len_list
    rounds, action, place = numpy.arange(n), feedback["action"], feedback["position"]
    with open(report) as f:
        policies = json.load(f)["off_policy"]["policies"]
    far, compared = [], 0
    for policy in policies:
        if not policy["all_arms"] or policy["policy"] == "target":
            continue
        name = policy["policy"]
        probability = rows[f"{name}_probability"].to_numpy(float)
        # What else the policy serves is another action, whichever, that is expected to have what the
        # policy is expected to have.
        other = (action + 1) % actions
        serves = numpy.zeros((n, actions, places))
        serves[:, 0, :] = 1  # at places of other rounds, which nobody looks at, it is to be a distribution too
        serves[rounds, :, place] = 0
        serves[rounds, action, place] = probability
        serves[rounds, other, place] = 1 - probability
        expected = numpy.zeros((n, actions, places))
        rest = rows[f"{name}_expected"].to_numpy(float)
        expected[rounds, :, place] = rest[:, None]
        expected[rounds, action, place] = rows["expected"].to_numpy(float)
        partly = (probability > 0) & (probability < 1)
        if not numpy.allclose(rows["expected"].to_numpy(float)[partly], rest[partly], rtol=0, atol=0):
            far.append(f"{name}: what was drawn is expected to have something else than what is drawn")
        given = dict(reward=feedback["reward"], action=action, pscore=feedback["pscore"], position=place, action_dist=serves)
        for key, estimator in [
            ("ips", InverseProbabilityWeighting()),
            ("snips", SelfNormalizedInverseProbabilityWeighting()),
            ("dr", DoublyRobust()),
        ]:
            more = {"estimated_rewards_by_reg_model": expected} if key == "dr" else {}
            theirs, ours = estimator.estimate_policy_value(**given, **more), policy[key]["value"]
            compared += 1
            print(f"{name:8} {key:6} ours {ours:.15f} theirs {theirs:.15f} apart {abs(ours - theirs):.1e}")
            if not abs(ours - theirs) <= CLOSE:
                far.append(f"{name} {key}: {ours} and {theirs}")
    if compared == 0:
        far.append("nothing was compared")
    if far:
        sys.exit("\n".join(far))
    print(f"{compared} estimates of {n} rounds agree within {CLOSE}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        import obp  # noqa: F401
    except ModuleNotFoundError as e:
        if e.name == "obp":
            print(f"LEFT OUT: estimates were not compared with the Open Bandit Pipeline, which is not here: {e}")
            sys.exit(0)
    except ImportError:
        pass  # for want of torch; main says what else
    sys.modules.pop("obp", None)
    main(*sys.argv[1:])
