//! Whether somebody is at work on another generation of the read model.

/// The advisory lock of whoever builds or swaps generations: "lead", "rebd" in ASCII.
pub const LOCK: (i32, i32) = (0x6c65_6164, 0x7265_6264);

/// An SQL expression: whether `projection_generation AS g` is half built, and its builder gone. A replica
/// does not know: locks stay with the primary.
pub fn is_abandoned() -> String {
    let (class, object) = LOCK;
    // objsubid tells two 32-bit keys from one of 64 bits.
    format!(
        "(g.state = 'building' AND NOT pg_is_in_recovery() AND NOT EXISTS (
            SELECT FROM pg_locks JOIN pg_database AS d ON d.oid = database
            WHERE locktype = 'advisory' AND classid::bigint = {class} AND objid::bigint = {object}
                AND objsubid = 2 AND granted AND d.datname = current_database()))"
    )
}
