//! What stays relaxed behind a move, and until when.

use super::*;

#[test]
fn a_moved_connection_is_relaxed_for_twice_the_timeout() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 1, Some(NEW)));
    script.until(100);
    script.switched(110, 1, moved(2, NEW));
    script.closed(111, 1);
    script.until(60_000);
    let (endpoint, conn) = (Scope::Endpoint(ep(NAME)), Scope::Conn(ConnId(2)));
    assert_eq!(
        script.relaxed(),
        [
            (0, "relax", endpoint.clone()),
            (110, "relax", conn.clone()),
            (3_000, "restore", endpoint),
            (20_110, "restore", conn),
        ]
    );
}

#[test]
fn what_a_moved_connection_relaxed_is_restored_when_it_goes() {
    // Lost within its tail: its lane goes on with another connection.
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 1, Some(NEW)));
    script.until(100);
    script.switched(110, 1, moved(2, NEW));
    script.closed(111, 1);
    script.until(5_000);
    script.closed(5_000, 2);
    script.input(5_010, Input::Opened { origin: at(3, NEW) });
    // And moved again within it.
    script.hear(6_000, &at(3, NEW), moving(2, 1, Some(OLD)));
    script.until(6_100);
    script.switched(6_110, 3, moved(4, OLD));
    script.closed(6_120, 3);
    script.hear(8_000, &moved(4, OLD), moving(3, 1, Some(NEW)));
    script.until(8_100);
    script.switched(8_110, 4, moved(5, NEW));
    script.closed(8_120, 4);
    script.until(60_000);
    let of_conns: Vec<_> = script
        .relaxed()
        .into_iter()
        .filter_map(|(at, what, scope)| match scope {
            Scope::Conn(conn) => Some((at, what, conn.0)),
            _ => None,
        })
        .collect();
    let expected = [
        (110, "relax", 2),
        (5_000, "restore", 2),
        (6_110, "relax", 4),
        (8_110, "relax", 5),
        (8_120, "restore", 4),
        (28_110, "restore", 5),
    ];
    assert_eq!(of_conns, expected);
}
