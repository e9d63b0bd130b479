"""Settings of unlearning methods for a small problem, chosen without a look at test data.

    python scripts/tune_unlearning.py unlearning_digits
    python scripts/tune_unlearning.py unlearning_fashion_mnist --methods scrub salun

A tenth of the training set is put aside and takes the place of the test set; seed 100 and class 0 are neither
a seed nor a class of the experiment. A model is compared with one retrained without the class, in three figures:
accuracy on retained classes (held-out images), accuracy on the forgotten training images, and their mean entropy
(as a share of ln C), all in percent. The gap is the sum of the absolute differences.

The settings of conf/method stay unless they are inert (forgotten accuracy above 10 %), destructive (retained accuracy
5 points below the oracle's) or longer than training; then the candidate with the smallest gap is taken, into
conf/experiment/<experiment>/<method>.yaml.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from fisherexp.config.explain import composed
from fisherexp.metrics.confidence import entropy
from fisherexp.runs.workbench import Workbench

# Candidates of each method as options beside those of conf/method, which "" takes as they are. On Fashion-MNIST an
# epoch is a third of training, so that published lengths of several epochs are not tried.
CANDIDATES = {
    "unlearning_digits": {
        "finetune": ["", "lr=0.05", "lr=0.1", "lr=0.2"],
        "gradient_ascent": ["", "lr=0.0005", "lr=0.001", "epochs=2", "epochs=2 lr=0.001"],
        "neggrad_plus": ["", "lr=0.003", "lr=0.03", "alpha=0.99", "alpha=0.99 lr=0.03"],
        "bad_teacher": ["", "lr=1e-3", "lr=3e-3", "lr=1e-3 epochs=5", "lr=1e-3 epochs=5 batch_size=64"],
        "amnesiac": ["", "lr=1e-3", "epochs=10", "lr=1e-3 epochs=10"],
        "unsir": ["", "lr=1e-3", "lr=1e-2", "copies=8 lr=1e-3", "copies=8 lr=3e-3", "copies=8 lr=1e-2"],
        "fisher_forgetting": ["", "alpha=1e-8", "alpha=1e-7", "alpha=1e-5"],
        "scrub": ["", "lr=5e-3", "lr=1e-2", "lr=2e-2", "lr=5e-3 epochs=6 max_epochs=4"],
        "salun": ["", "order=mixed", "lr=0.005", "order=mixed lr=0.05"],
        "inverted_hinge": ["", "lr=1e-3", "lr=3e-3", "lr=1e-3 epochs=10"],
        "satimp": ["", "lr=1e-3", "lr=1e-3 retain_weight=1.0", "lr=3e-3 retain_weight=1.0", "saturation=1.0"],
        "ssd": ["", *(f"alpha_relative={a}" for a in (0.3, 0.4, 0.5, 0.6, 0.8))],
        "lfssd": ["", *(f"alpha_relative={a}" for a in (0.2, 0.3, 0.5, 0.6))],
        "assd": [""],
    },
    "unlearning_fashion_mnist": {
        "ssd": [f"importance.batch_size=64 alpha_relative={a}" for a in (0.7, 0.5, 0.3, 0.2, 0.1)],
        "lfssd": ["batch_size=64"],
        "assd": [""],
        "scrub": [
            "epochs=1 max_epochs=1",
            "epochs=1 max_epochs=1 lr=5e-3",
            "epochs=1 max_epochs=1 lr=1e-4",
            "epochs=2 max_epochs=1",
            "epochs=2 max_epochs=1 lr=2e-3",
            "epochs=1 max_epochs=1 forget_batch_size=512",
            "epochs=1 max_epochs=1 forget_batch_size=512 lr=5e-3",
        ],
        "salun": ["epochs=1", "epochs=1 order=mixed"],
        "amnesiac": ["epochs=1", "epochs=1 lr=1e-3"],
        "fisher_forgetting": [f"importance.labels=sampled alpha={a}" for a in ("1e-6", "1e-7", "1e-8")],
        "finetune": ["epochs=1", "epochs=1 lr=0.1"],
        "gradient_ascent": ["", "epochs=1 lr=3e-4", "epochs=1 lr=1e-3"],
        "neggrad_plus": [f"epochs=1 alpha={a}" for a in (0.95, 0.99, 0.999)],
        "bad_teacher": ["", "lr=1e-3"],
        "unsir": ["", "lr=3e-3"],
        "inverted_hinge": ["epochs=1"],
        "satimp": ["epochs=1", "epochs=1 retain_weight=1.0"],
    },
}
FIGURES = ("retained", "forgotten", "entropy")


def figures(bench: Workbench, model: torch.nn.Module) -> dict[str, float]:
    """Held-out accuracy on retained classes, accuracy and entropy of the forgotten training images: percent."""
    logits, labels = {}, {}
    model.eval()
    with torch.inference_mode():
        for part in ("test_retain", "forget"):
            batches = list(bench.setting.loader(part))
            logits[part] = torch.cat([model(batch.inputs) for batch in batches])
            labels[part] = torch.cat([batch.targets for batch in batches])
    accuracy = {part: 100 * (logits[part].argmax(1) == labels[part]).double().mean().item() for part in logits}
    share = 100 * entropy(logits["forget"]).mean().item() / math.log(logits["forget"].shape[1])
    return {"retained": accuracy["test_retain"], "forgotten": accuracy["forget"], "entropy": share}


def bench_of(experiment: str, outputs: Path, method: str = "erm", options: str = "") -> Workbench:
    """A workbench on which the held-out tenth is the test set."""
    chosen = [f"experiment={experiment}", f"method={method}", *(f"method.{option}" for option in options.split())]
    fixed = ["seed=100", "scenario.classes=[0]", "data.validation=0.1", f"output_dir={outputs}", "progress=off"]
    # What an earlier choice has put beside the experiment must not hide the published settings.
    bench = Workbench(composed([*chosen, *fixed, "~experiment@method"]))
    bench.data.test = bench.data.validation
    return bench


def trial(experiment: str, outputs: Path, method: str, options: str) -> dict:
    """Figures of one candidate, and the seconds its fit took."""
    bench = bench_of(experiment, outputs, method, options)
    fit, source = bench.method("method"), bench.reference("source")
    fit.model.load_state_dict(source.tensors)
    seconds = 0.0
    if "fisher" in fit.needs:
        fit.given["fisher"], cost = bench.fisher(fit.importance, source)
        seconds = cost["seconds"]
    bench.fit(fit, outputs / "trial" / method, method)
    return figures(bench, fit.model) | {"seconds": seconds + bench.costs[method]["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=list(CANDIDATES))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/tuning"))
    options = parser.parse_args()
    bench, rows = bench_of(options.experiment, options.outputs), []
    goal = {}
    for name in ("source", "oracle"):
        method, weights = bench.method(name), bench.trained(name)
        method.model.load_state_dict(weights.tensors)
        goal = figures(bench, method.model)
        rows.append({"method": name, "options": ""} | goal | {"seconds": weights.about["cost"]["seconds"]})
    for method in options.methods or CANDIDATES[options.experiment]:
        for candidate in CANDIDATES[options.experiment][method]:
            found = trial(options.experiment, options.outputs, method, candidate)
            gap = sum(abs(found[name] - goal[name]) for name in FIGURES)
            rows.append({"method": method, "options": candidate} | found | {"gap": gap})
            print(json.dumps(rows[-1]), flush=True)
    print(f"\n| method | options | {' | '.join(FIGURES)} | gap | seconds |\n|---|---|---|---|---|---|---|")
    for row in rows:
        numbers = [f"{row[name]:.1f}" if name in row else "" for name in (*FIGURES, "gap", "seconds")]
        print(f"| {row['method']} | {row['options'] or 'as in conf/method'} | {' | '.join(numbers)} |")


if __name__ == "__main__":
    main()
