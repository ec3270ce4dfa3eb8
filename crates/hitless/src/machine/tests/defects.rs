//! The defects that other clients fixed or still have, as far as they can concern an engine.
