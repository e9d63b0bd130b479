"""How much of the forgotten data is left in a model: accuracies and population attacks, from one forward pass."""

import numpy as np

from fisherexp.metrics.population_attacks import entropy_attack, svc_attack, svc_features
from fisherexp.metrics.predictions import Predictions


class UnlearningMetrics(Predictions):
    """Fed with the parts 'retain', 'forget' (training samples), 'test_retain', 'test_forget' (may be absent).

    update(part, logits (B, C), labels (B,)); compute() -> percentages:
    retain_accuracy: test samples of what is retained.
    forget_accuracy: test samples of what is forgotten, or the forgotten training samples where there are none.
    retain_train_accuracy, forget_train_accuracy: the training samples.
    mia: share of the forgotten training samples taken for members by the entropy attack; its non-members are all
        test samples.
    svc_mia_<feature>: share of them taken for non-members by an SVC on that feature; its non-members are test samples
        of what is retained. (With forgotten classes among them it would learn to tell classes, not members.)
    Members are retained training samples in both; see population_attacks.py.
    """

    headings = {
        "retain_accuracy": "retain\nacc. %",
        "forget_accuracy": "forget\nacc. %",
        "mia": "membership\nattack %",
    }
    # What is forgotten should look as it does to the retrained oracle: there, no extreme is the goal.
    better = {"retain_accuracy": "higher"}

    def compute(self) -> dict[str, float]:
        parts = self.gathered()
        accuracy = {n: 100 * (logits.argmax(1) == y).double().mean().item() for n, (logits, y) in parts.items()}
        features = {name: svc_features(*part) for name, part in parts.items()}
        entropies = {name: of_part["entropy"][:, 0] for name, of_part in features.items()}
        tests = np.concatenate([entropies[name] for name in ("test_retain", "test_forget") if name in parts])
        found = {
            "retain_accuracy": accuracy["test_retain"],
            "forget_accuracy": accuracy.get("test_forget", accuracy["forget"]),
            "mia": 100 * entropy_attack(entropies["retain"], tests, entropies["forget"]),
            "retain_train_accuracy": accuracy["retain"],
            "forget_train_accuracy": accuracy["forget"],
        }
        for feature in features["retain"]:
            groups = (features[name][feature] for name in ("retain", "test_retain", "forget"))
            found[f"svc_mia_{feature}"] = 100 * svc_attack(*groups)
        return found
