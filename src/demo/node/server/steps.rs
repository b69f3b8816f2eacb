//! Scripted steps: in place of an answer, before a request, and after a part of one.

use super::super::connection::Connection;
use super::super::fault::{Effect, Manner, Reaction, Step};
use super::{Server, guard};

impl Server {
    /// The steps before a request is read, if there are some for this connection.
    pub(super) fn steps_at_accept(&self) -> Option<Vec<Step>> {
        self.steps(|effect| match effect {
            Effect::AtAccept(steps) => Some(steps),
            Effect::React(_) | Effect::CloseWhenIdle(_) | Effect::AtPart(_) => None,
        })
    }

    /// The steps after a part of a request, if there are some for this one.
    pub(in super::super) fn steps_at_part(&self) -> Option<Vec<Step>> {
        self.steps(at_part)
    }

    /// Whether the next request is met before it is whole.
    pub(in super::super) fn meets_parts(&self) -> bool {
        let faults = guard(&self.faults);
        faults.iter().any(|fault| at_part(&fault.effect).is_some())
    }

    fn steps(&self, wanted: impl Fn(&Effect) -> Option<&Vec<Step>>) -> Option<Vec<Step>> {
        let faults = guard(&self.faults);
        let steps = faults
            .iter()
            .find_map(|fault| wanted(&fault.effect))
            .cloned();
        drop(faults);
        steps.filter(|_| self.spend(|effect| wanted(effect).is_some()))
    }
}

fn at_part(effect: &Effect) -> Option<&Vec<Step>> {
    match effect {
        Effect::AtPart(steps) => Some(steps),
        Effect::React(_) | Effect::CloseWhenIdle(_) | Effect::AtAccept(_) => None,
    }
}

/// Does what a reaction says that does not run the request.
pub(super) fn misbehave(connection: &Connection, reaction: Reaction) {
    match reaction {
        Reaction::Close(ending) => connection.put([Step::End(ending)]),
        Reaction::Steps(steps) => {
            if !matches!(steps.last(), Some(Step::Stall)) {
                connection.answered_raw();
            }
            connection.put(steps);
        }
        Reaction::Status(status) => {
            connection.answer(&connection.voice.page(status), &Manner::default());
        }
        Reaction::Ignore | Reaction::Serve | Reaction::ServeAs(_) | Reaction::LoseAnswer(_) => {}
    }
}
