"""Adapters above a trunk whose members' parameters are stacked and trained side by side."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from trainables.adapters.adapter import MemberState, TrainingPlanT
from trainables.adapters.own_texts import OwnStep, OwnTexts
from trainables.adapters.split import SplitAdapter
from trainables.adapters.stacks import ParameterStacks
from trainables.adapters.training import PackTraining, StepLosses
from trainables.lm.batches import TextBatch


class StackedAdapter(SplitAdapter[TrainingPlanT]):
    """K members, each with an optimiser of its own.

    A subclass makes its stacks, hands them to `train_these`, and says what a member loses.

    Attributes:
        stacks: what is trained.
        training: trains it.
    """

    stacks: ParameterStacks
    training: PackTraining

    def train_these(self, stacks: ParameterStacks) -> None:
        """Set up the training of some stacks."""
        self.stacks = stacks
        texts = {layer: states.train for layer, states in self.states.items()}
        what = f"{self.plans[0].name} in {self.parts.card.name}"
        self.training = PackTraining(self.plans, self.layers, texts, stacks, self.losses, self.own_losses, what)

    @abstractmethod
    def losses(self, batch: TextBatch, who: slice, step: TextBatch) -> StepLosses:
        """Return what some members lose on some texts.

        Args:
            batch: texts of one forward pass.
            who: which members.
            step: all texts of the step; losses are means over it.
        """

    def own_losses(self, own: OwnTexts, who: slice, step: OwnStep) -> StepLosses:
        """Return the same where each member has texts of its own: needed where the plan says so (`own_texts`).

        Args:
            own: texts of one forward pass.
            who: which members.
            step: all texts of the step, of all members.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: members of one pack have one seed and one block, and are at one epoch"
        )

    def train_epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train one epoch."""
        return self.train_epochs([epoch] * self.num_members)

    def train_epochs(self, epochs: Sequence[int]) -> list[dict[str, float]]:
        """Train one epoch of each member."""
        self.training.active = list(self.active)
        means = self.training.run_epoch(epochs)
        self.active = list(self.training.active)
        return means

    def train_flops(self, epochs: int, member: int = 0) -> float:
        """Count two FLOPs per weight and token forward, the same backward (ours); the head where there is a target."""
        card, train = self.parts.card, self.states[self.layer].train
        ran = card.num_blocks if self.upper.needs_tokens else card.num_blocks - 1 - self.layers[member]
        blocks = ran * card.active_block_params
        per_epoch = (
            train.num_tokens * (4 * blocks + 6 * self.num_multiplied(member)) + train.num_targets * 4 * card.head_params
        )
        return float(epochs * per_epoch)

    def num_multiplied(self, member: int) -> int:
        """Return how many weights of a member every token is multiplied by."""
        return self.plans[member].added_params(self.parts.card)

    def trained_params(self, member: int) -> int:
        """Return how many numbers a member trains."""
        return self.stacks.member_size(member)

    def state(self, member: int) -> MemberState:
        """Return copies of a member's weights and of its moments."""
        return MemberState(self.stacks.member_state(member), self.training.optimiser.member_state(member))

    def load_state(self, member: int, state: MemberState) -> None:
        """Set a member's weights and its moments."""
        self.stacks.load_member_state(member, state.weights)
        self.training.optimiser.load_member_state(member, state.optimiser)
