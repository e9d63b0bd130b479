"""The Weights & Biases workspace of a project, by code: a section of panels for each wing.

    python scripts/wandb_dashboard.py my-team fisherexp          # needs an account; prints the address
    python scripts/wandb_dashboard.py my-team fisherexp --dry    # prints what would be sent

Panels use the names under which every run is mirrored: `after/<metric>` for what a method ended with, `before/…` and
`oracle/…` for the models it is compared with, `figures/<name>` for pictures. Runs of one experiment share a group.
"""

import argparse
import sys

try:
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces
except ModuleNotFoundError:
    sys.exit("this script needs wandb-workspaces: pip install 'fisherexp[dashboard]'")

METHOD = "config.method._target_"


def bars(title: str, *metrics: str) -> panels.BarPlot:
    """Means over the runs of each method."""
    return panels.BarPlot(title=title, metrics=list(metrics), groupby=METHOD, orientation="h")


def scatter(x: str, y: str) -> panels.ScatterPlot:
    """One point per run."""
    return panels.ScatterPlot(title=f"{y} against {x}", x=x, y=y)


def lines(title: str, *metrics: str) -> panels.LinePlot:
    """Curves over steps, folded over seeds by their group."""
    return panels.LinePlot(title=title, x="Step", y=list(metrics), groupby="group")


def pictures(title: str, *names: str) -> panels.MediaBrowser:
    """Pictures that runs left in their folders."""
    return panels.MediaBrowser(title=title, media_keys=[f"figures/{name}" for name in names])


WINGS = {
    "Unlearning": [
        scatter("after/forget_accuracy", "after/retain_accuracy"),
        bars("membership attack (%)", "after/mia"),
        bars("JS to the oracle (nats)", "after/oracle_js_forget"),
        bars("seconds", "after/seconds"),
    ],
    "Adaptation": [
        bars("mean error (%)", "after/mean_error"),
        scatter("after/clean_error", "after/mean_error"),
        bars("forgetting (points)", "after/forgetting"),
        bars("samples sent backward", "after/backward_samples"),
    ],
    "Mixup": [
        bars("test accuracy (%)", "after/test_accuracy"),
        bars("calibration error", "after/test_ece"),
        pictures("neural collapse", "projection", "collapse", "channels", "reliability"),
    ],
    "Invariance": [
        scatter("after/train_accuracy", "after/target_accuracy"),
        bars("target accuracy (%)", "after/target_accuracy"),
        pictures("domains", "domain_watch"),
    ],
    "Curvature": [pictures("Fisher", "fisher"), lines("largest eigenvalues", "eigenvalues/values/0")],
    "Training": [lines("training loss", "train/loss"), lines("domain penalty", "train/penalty")],
}


def workspace(entity: str, project: str) -> workspaces.Workspace:
    """The whole workspace; nothing is sent."""
    sections = [workspaces.Section(name=name, panels=found, is_open=True) for name, found in WINGS.items()]
    return workspaces.Workspace(entity=entity, project=project, name="fisherexp", sections=sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project")
    parser.add_argument("--dry", action="store_true", help="send nothing, print the sections and panels")
    options = parser.parse_args()
    made = workspace(options.entity, options.project)
    if options.dry:
        for section in made.sections:
            print(section.name)
            for panel in section.panels:
                print(f"  {type(panel).__name__:<13} {panel.title}")
        return
    print(made.save().url)


if __name__ == "__main__":
    main()
