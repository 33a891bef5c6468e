//! What the system says of this process, under the names that every exporter uses for it.
//!
//! Read from `/proc` for each scrape. What cannot be read is left out.

use super::exposition::Kind::Counter;
use super::exposition::Kind::Gauge;
use super::exposition::Page;
use std::fs;

/// Writes the families.
pub(super) fn families(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let help = "Processor time, of user and system, in seconds.";
    let mut family = page.family(Counter, "process_cpu_seconds", help);
    if let Some(ticks) = cpu_ticks(&stat) {
        family.sample(&[], format_args!("{}.{:02}", ticks / HERTZ, ticks % HERTZ));
    }
    let help = "When the process started, in seconds since 1970.";
    let mut family = page.family(Gauge, "process_start_time_seconds", help);
    if let Some(started) = started(&stat, &boot) {
        family.sample(&[], started);
    }
    let help = "Memory that is resident, in bytes.";
    let mut family = page.family(Gauge, "process_resident_memory_bytes", help);
    if let Some(bytes) = resident_bytes(&status) {
        family.sample(&[], bytes);
    }
    let help = "File descriptors that are open.";
    let mut family = page.family(Gauge, "process_open_fds", help);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        family.sample(&[], open.count());
    }
}

/// A field of `/proc/self/stat` by its number in proc(5). The name of the program, which may hold
/// anything, ends with the last bracket.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let place = number.checked_sub(3)?;
    rest.split_ascii_whitespace().nth(place)?.parse().ok()
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    field(stat, 14)?.checked_add(field(stat, 15)?)
}

fn started(stat: &str, boot: &str) -> Option<u64> {
    let booted = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    let booted: u64 = booted.trim().parse().ok()?;
    booted.checked_add(field(stat, 22)? / HERTZ)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Ticks in a second, as the kernel tells them to programs.
const HERTZ: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 75 0 0 20 0 4 0 4200 1 2 3";

    #[test]
    fn numbers_are_found_behind_any_name() {
        assert_eq!(cpu_ticks(STAT), Some(225));
        assert_eq!(started(STAT, "cpu 1 2\nbtime 1000\n"), Some(1042));
        assert_eq!(resident_bytes("Name: x\nVmRSS:\t    8 kB\n"), Some(8192));
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for stat in ["", ")", "7 (a", "7 (a) S x"] {
            assert_eq!(cpu_ticks(stat), None, "{stat}");
            assert_eq!(started(stat, "btime 1"), None, "{stat}");
        }
        assert_eq!(started(STAT, ""), None);
        assert_eq!(resident_bytes("VmRSS: 8 MB"), None);
    }
}
