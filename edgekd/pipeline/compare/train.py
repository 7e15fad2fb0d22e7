"""The stages of a comparison: the teachers, then the students of every arm and seed. It needs torch."""

from __future__ import annotations

from edgekd.documents.recipe import Distillation
from edgekd.errors import DocumentError, UsageError
from edgekd.pipeline import learn
from edgekd.pipeline.compare.answers import answers_of, label_weight
from edgekd.pipeline.compare.arms import CE, Arm
from edgekd.pipeline.compare.judge import Trained, Training
from edgekd.pipeline.context import Context, NotDoneError
from edgekd.pipeline.head_stages import heads
from edgekd.pipeline.networks import WEIGHTS, load_student, network_ingredients
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.teachers import TeacherStages, load_teacher, make_teacher, random_role
from edgekd.tasks.task import Task


class Course:
    """The trainings of a comparison. What is finished stays in `trained`, also when the work is stopped."""

    def __init__(
        self,
        context: Context,
        arms: tuple[Arm, ...],
        seeds: tuple[int, ...],
        *,
        watch_test: bool = False,
    ) -> None:
        """Load the task, and build every arm's objective once.

        Args:
            context: what every stage is given.
            arms: the ways of training.
            seeds: of each arm's trainings.
            watch_test: whether each epoch's record notes the top-1 on the test split.

        Raises:
            DocumentError: with every arm that cannot work with these networks on these data, a line each.
            EdgekdError: whatever is wrong with the data or the networks.
        """
        self._context, self._arms, self.seeds = context, arms, seeds
        self._watch_test = watch_test
        self._task = learn.task_of(context)
        _try_out(context, self._task, arms)
        self._trainings: dict[tuple[str, int], Training] = {}
        self.trained: list[Trained] = []
        self.teachers: tuple[Stage, ...] = ()
        self.teacher: Stage | None = None

    @property
    def test_examples(self) -> int:
        """Examples of the test split."""
        return len(self._task.test.y)

    def go(self) -> None:
        """Make or find every stage, arm after arm."""
        teachers = self._teachers()
        self.teachers = tuple(stage for one in teachers.values() for stage in one.stages)
        self.teacher = self._teacher_answers(teachers[True])
        for arm in self._arms:
            teacher, made = self._taught_by(arm, teachers)
            trainings = tuple(self._training(arm, seed, teacher, made) for seed in self.seeds)
            self.trained.append(Trained(arm, trainings, tuple(made)))

    def missing(self) -> list[str]:
        """In a dry run, the stages that are not there; of those that follow from one, that one alone."""
        names: list[str] = []
        try:
            teachers = self._teachers()
        except NotDoneError as stop:
            return [str(stop), *(arm.stage(seed) for arm in self._arms for seed in self.seeds)]
        for arm, seed in [(arm, seed) for arm in self._arms for seed in self.seeds]:
            try:
                self._training(arm, seed, *self._taught_by(arm, teachers))
            except NotDoneError as stop:
                names.append(str(stop))
        return list(dict.fromkeys(names))

    def _teachers(self) -> dict[bool, TeacherStages]:
        """The trained one, and the one that was left as it was drawn."""
        untrained = random_role(self._context.recipe.teacher)
        return {
            True: make_teacher(self._context, self._task),
            False: make_teacher(self._context, self._task, untrained, name="random-teacher"),
        }

    def _teacher_answers(self, teacher: TeacherStages) -> Stage | None:
        if not teacher.is_network:
            return None
        context, task = self._context, self._task
        return answers_of(
            context,
            task,
            "compare-teacher",
            teacher.ingredients,
            lambda: load_teacher(context, task, teacher),
        )

    def _taught_by(
        self, arm: Arm, teachers: dict[bool, TeacherStages]
    ) -> tuple[TeacherStages | None, list[Stage]]:
        """The teacher of an arm and the heads on it that its terms read; nobody where no term reads one."""
        if not arm.objective.needs_teacher:
            return None, []
        teacher = teachers[arm.trained_teacher]
        return teacher, heads(self._context, self._task, teacher, arm.objective)

    def _training(self, arm: Arm, seed: int, teacher: TeacherStages | None, made: list[Stage]) -> Training:
        context, task, name = self._context, self._task, arm.stage(seed)
        objective, weight = self._objective(arm, seed)
        student = learn.student(
            context,
            task,
            teacher,
            made,
            name=name,
            distillation=objective,
            seed=seed,
            watch_test=self._watch_test,
        )
        ingredients = [student.file.files[WEIGHTS], network_ingredients(context.recipe.student)]
        answers = answers_of(context, task, name, ingredients, lambda: load_student(context, task, student))
        training = Training(seed, student, answers, weight)
        self._trainings[arm.name, seed] = training
        return training

    def _objective(self, arm: Arm, seed: int) -> tuple[Distillation, float | None]:
        """What a student learns by, and the weight of the labels where two other students tell it."""
        if arm.guide is None:
            return arm.objective, None
        told_by = [self._trainings.get((name, seed)) for name in (CE, arm.guide.name)]
        if not all(told_by):
            raise NotDoneError(arm.stage(seed))
        weight = label_weight(self._task, *(one.answers for one in told_by if one is not None))
        return arm.weighted(weight), weight


def _try_out(context: Context, task: Task, arms: tuple[Arm, ...]) -> None:
    problems = []
    for arm in arms:
        try:
            learn.try_out(context, task, (arm.objective,))
        except UsageError as error:
            hint = f"; {error.hint}" if error.hint else ""
            problems.append(f"arm '{arm.name}': {error.where}: {error.message}{hint}")
    if problems:
        raise DocumentError("--terms", problems, hint="leave these arms out, or change the recipe")
