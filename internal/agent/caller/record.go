package caller

// Record is what the kernel wrote down about who made a connection, at that
// moment (package capture).
type Record struct {
	// PID is the process's id in the host's pid namespace; StartNS is when it
	// started, in nanoseconds since boot, so that a pid that was given anew is
	// seen to be.
	PID     int
	StartNS uint64
	// UID and GID are the connecting thread's, in the host's user namespace.
	UID, GID uint32
	// CgroupID is the id (inode number) of the process's cgroup v2.
	CgroupID uint64
	// Device and Inode are of its executable's file, as stat(2) has them where
	// the filesystem has one device.
	Device, Inode uint64
}
