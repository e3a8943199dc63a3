"""Shifts, and the queue of exits of those who stayed away."""

from __future__ import annotations

from reference.world import Agent, World

__all__ = ["Shifts"]


class Shifts(World):
    """What employment adds to a world."""

    granted: list[int]
    """Slots whose exit was decided in this step."""

    def _fine(self, agent: Agent, amount: float) -> None:
        agent.wallet -= min(agent.wallet, amount)

    def _pay(self, agent: Agent, amount: float) -> None:
        agent.wallet += amount
        agent.paid += amount

    def play_work(self, agent: Agent) -> None:
        rules, job = self.config.employment, agent.job
        assert job is not None
        k = self.tod - job.start
        if agent.shift == "pre":
            if agent.worked and k <= rules.grace_ticks:
                agent.shift = "on_time"
            elif k > rules.grace_ticks:
                agent.shift = "late"
                agent.late_count += 1
                self._fine(agent, job.lateness_penalty)
                self.emit(agent.slot, "shift_late", value=float(k))
        gone = agent.work_ticks > 0 and not agent.worked and self.tod - agent.last_worked > rules.absence_slack
        if gone and not agent.departed:
            agent.departed = True
            self.emit(agent.slot, "shift_departed_early", value=float(job.end - self.tod))
        if agent.shift == "late" and not agent.worked:
            if (agent.work_ticks == 0 or gone) and k >= rules.absent_cutoff + agent.cover_ticks:
                agent.shift = "absent"
                self._fine(agent, rules.absence_penalty)
                agent.absent_days.append(0)
                self.emit(agent.slot, "shift_absent", value=float(k))
                self._seek_exit(agent)
            elif agent.covered:
                self._pay(agent, rules.cover_share * job.wage)
                agent.cover_ticks += 1
            else:
                agent.withheld += job.wage
                agent.docked += job.wage
                self._fine(agent, rules.late_tick_penalty)
        if agent.worked:
            f = 1.0
            if agent.covering:
                f -= rules.cover_cost
            if agent.took:
                f += rules.take_bonus
            self._pay(agent, job.wage * f)
            agent.work_ticks += 1
            agent.last_worked = self.tod
            if agent.shift == "on_time":
                agent.on_time_ticks += 1

    def _seek_exit(self, agent: Agent) -> None:
        rules = self.config.employment
        if agent.pending is not None or not 0 < rules.max_absent_shifts <= agent.absences:
            return
        if sum(other.pending is not None for other in self.present()) >= rules.exit_queue_limit:
            self.emit(agent.slot, "employment_exit_queue_overflow", value=float(agent.absences))
        else:
            agent.pending = self.tick
            self.emit(agent.slot, "employment_exit_pending", value=float(agent.absences))

    def review_exits(self, *, turn_of_day: bool) -> None:
        rules = self.config.employment
        waited = {agent.slot: self.tick - agent.pending for agent in self.present() if agent.pending is not None}
        self.granted = [slot for slot, ticks in waited.items() if ticks >= rules.exit_review_window]
        deferred: list[int] = []
        if turn_of_day:
            queue = sorted((slot for slot in waited if slot not in self.granted), key=lambda slot: -waited[slot])
            self.granted += queue[: rules.daily_exit_cap]
            deferred = sorted(queue[rules.daily_exit_cap :])
        for slot in self.granted:
            self.emit(slot, "employment_exit_processed", value=float(waited[slot]))
        for slot in deferred:
            self.emit(slot, "employment_exit_deferred", value=float(waited[slot]))
        for agent in self.present():
            if turn_of_day:
                self._seek_exit(agent)
