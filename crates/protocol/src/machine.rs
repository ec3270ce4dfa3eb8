//! The shape of every machine: observations in, actions and deadlines out, no clock and no I/O.

use std::time::Instant;

/// A decision maker that a driver, a test script or a simulated world can run alike.
///
/// After each input the driver drains [`poll_action`](Self::poll_action) until `None` and arms one timer for
/// [`poll_timeout`](Self::poll_timeout). Results of actions come back as inputs.
pub trait Machine {
    /// What is observed.
    type Input;
    /// What is to be done.
    type Action;

    /// Takes an observation made at `now`.
    fn handle_input(&mut self, now: Instant, input: Self::Input);

    /// Tells that `now` has come; calls that are too early do nothing.
    fn handle_timeout(&mut self, now: Instant);

    /// Gives the next action; it drains a queue and decides nothing.
    fn poll_action(&mut self) -> Option<Self::Action>;

    /// When to call [`handle_timeout`](Self::handle_timeout) next, if ever.
    fn poll_timeout(&self) -> Option<Instant>;
}
