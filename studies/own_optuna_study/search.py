"""An Optuna study of one's own, in its own storage, over the space of autoprune: each trial is a plan."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna

# The command line knows this script's folder; its neighbours are imported by their full names.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import autoprune
from studies.digits.study import task


def search(
    context: autoprune.TrialContext,
    storage: str,
    trials: int = 20,
    recovery: autoprune.RecoverySettings | None = None,
) -> optuna.Study:
    """Search by NSGA-II for accurate and small models; goes on where the storage holds the study."""
    recovery = recovery if recovery is not None else autoprune.RecoverySettings(steps=150, learning_rate=(0.02, 0.2))
    settings = autoprune.SpaceSettings(recovery=recovery)
    space = autoprune.PruningSpace(context.topology.describe(), settings)

    def objective(trial: optuna.Trial) -> tuple[float, int]:
        plan = space.suggest(trial)
        found = autoprune.evaluate(plan, context).measurement
        trial.set_user_attr("plan", plan.to_json())  # replays the trial without Optuna
        trial.set_user_attr("accuracy_error", found.quality_error)
        return found.quality, found.multiply_adds

    study = optuna.create_study(
        storage=storage,
        study_name="digits",
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.NSGAIISampler(population_size=10, seed=0),
        load_if_exists=True,
    )
    if not study.trials:
        study.enqueue_trial(space.parameters(space.dense()))
    study.optimize(objective, n_trials=trials)
    return study


if __name__ == "__main__":
    context = autoprune.TrialContext.of(task())  # prepared and proved once, for all trials
    for best in search(context, "sqlite:///own_optuna_study.db").best_trials:
        print(best.number, best.values)
