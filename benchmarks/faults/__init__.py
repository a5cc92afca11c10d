"""What a sweep does when processes are killed, disks are full and readers go away: scripts that try it."""
