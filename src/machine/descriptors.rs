//! How many connections a descriptor table has room for, and how many descriptors connections need.

/// Connections of one core, given the limit on open files. With one table for all, each gets an equal share. Never
/// none: a core that could accept nothing would be there for nothing.
pub(crate) fn connections_per_core(open_files: u64, own_table: bool, cores: u64) -> u64 {
    let share = if own_table {
        open_files
    } else {
        open_files / cores.max(1)
    };
    share.saturating_sub(spared(cores)).max(1)
}

/// The limit on open files that so many connections per core need.
pub(super) fn needed(connections_per_core: u64, own_table: bool, cores: u64) -> u64 {
    let share = connections_per_core + spared(cores);
    if own_table {
        share
    } else {
        share.saturating_mul(cores)
    }
}

/// Descriptors of a table that are not connections.
fn spared(cores: u64) -> u64 {
    DESCRIPTORS_SPARED + cores * DESCRIPTORS_PER_CORE
}

/// Standard streams, libraries, the control plane's.
const DESCRIPTORS_SPARED: u64 = 64;
/// Poll, waker and both ends of hand-over of every core.
const DESCRIPTORS_PER_CORE: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_need_is_just_enough_for_them() {
        for (own_table, cores) in [(true, 1), (true, 16), (false, 1), (false, 16)] {
            let limit = needed(5000, own_table, cores);
            assert_eq!(connections_per_core(limit, own_table, cores), 5000);
            assert_eq!(connections_per_core(limit - 1, own_table, cores), 4999);
        }
    }

    #[test]
    fn a_table_without_room_still_takes_one() {
        assert_eq!(connections_per_core(20, true, 2), 1);
        assert_eq!(connections_per_core(0, false, 2), 1);
    }
}
