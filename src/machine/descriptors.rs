//! Descriptor tables: how many connections fit into one, and how many descriptors connections need.

/// Connections of one core, given the limit on open files. With one table for all cores, each core gets an
/// equal share. At least one, since a core that could accept nothing would be useless.
pub(crate) fn connections_per_core(open_files: u64, own_table: bool, cores: u64) -> u64 {
    let share = if own_table {
        open_files
    } else {
        open_files / cores.max(1)
    };
    share.saturating_sub(spared(cores)).max(1)
}

/// The limit on open files that this many connections per core need.
pub(super) fn needed(connections_per_core: u64, own_table: bool, cores: u64) -> u64 {
    let share = connections_per_core + spared(cores);
    if own_table {
        share
    } else {
        share.saturating_mul(cores)
    }
}

/// Descriptors of a table that are not for connections.
fn spared(cores: u64) -> u64 {
    DESCRIPTORS_SPARED + cores * DESCRIPTORS_PER_CORE
}

/// Standard streams, libraries, the control plane.
const DESCRIPTORS_SPARED: u64 = 64;
/// For each core: poller, waker and both ends of its hand-over socket pair.
const DESCRIPTORS_PER_CORE: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_needed_descriptors_are_just_enough() {
        for (own_table, cores) in [(true, 1), (true, 16), (false, 1), (false, 16)] {
            let limit = needed(5000, own_table, cores);
            assert_eq!(connections_per_core(limit, own_table, cores), 5000);
            assert_eq!(connections_per_core(limit - 1, own_table, cores), 4999);
        }
    }

    #[test]
    fn a_table_without_room_still_allows_one_connection() {
        assert_eq!(connections_per_core(20, true, 2), 1);
        assert_eq!(connections_per_core(0, false, 2), 1);
    }
}
