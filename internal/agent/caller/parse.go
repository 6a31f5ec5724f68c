package caller

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// parseStart reads the start time of /proc/PID/stat, field 22: clock ticks
// since boot. The command in field 2 may have spaces and brackets.
func parseStart(stat []byte) (uint64, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("stat has no command")
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 20 {
		return 0, errors.New("stat ends before the start time")
	}
	n, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("start time in stat: %w", err)
	}
	return n, nil
}

// nsPerTick is how long a clock tick of procfs is: USER_HZ is 100 on every
// architecture that Go runs on.
const nsPerTick = 1e9 / 100

// sameStart reports whether a start time of a record is one of procfs's, which
// is cut to ticks.
func sameStart(recordNS, ticks uint64) bool { return recordNS/nsPerTick == ticks }

// credentials are what /proc/PID/status says: real, effective, saved and
// filesystem ids, and the supplementary groups.
type credentials struct {
	uids, gids [4]uint32
	groups     []uint32
}

func parseStatus(text []byte) (credentials, error) {
	var c credentials
	seen := 0
	for line := range bytes.Lines(text) {
		key, rest, ok := strings.Cut(string(line), ":")
		if !ok {
			continue
		}
		var err error
		switch key {
		case "Uid":
			c.uids, err = fourIDs(rest)
		case "Gid":
			c.gids, err = fourIDs(rest)
		case "Groups":
			c.groups, err = ids(rest)
		default:
			continue
		}
		if err != nil {
			return credentials{}, fmt.Errorf("%s in status: %w", key, err)
		}
		seen++
	}
	if seen != 3 {
		return credentials{}, errors.New("status has no Uid, Gid and Groups")
	}
	return c, nil
}

func fourIDs(text string) ([4]uint32, error) {
	list, err := ids(text)
	if err == nil && len(list) != 4 {
		err = fmt.Errorf("%d ids, 4 were expected", len(list))
	}
	if err != nil {
		return [4]uint32{}, err
	}
	return [4]uint32(list), nil
}

func ids(text string) ([]uint32, error) {
	fields := strings.Fields(text)
	out := make([]uint32, 0, len(fields))
	for _, f := range fields {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, err
		}
		out = append(out, uint32(n))
	}
	return out, nil
}

// cgroups are a process's paths in the hierarchies that count here; "" where
// there is no such hierarchy.
type cgroups struct{ v2, systemd, pids string }

// parseCgroups reads /proc/PID/cgroup: lines "id:controllers:path".
func parseCgroups(text []byte) (cgroups, error) {
	var c cgroups
	for line := range strings.Lines(string(text)) {
		id, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			return cgroups{}, fmt.Errorf("line %.80q of cgroup is not id:controllers:path", line)
		}
		switch {
		case id == "0" && controllers == "":
			c.v2 = path
		case controllers == "name=systemd":
			c.systemd = path
		case controllers == "pids":
			c.pids = path
		}
	}
	return c, nil
}

// mount is what is needed of a line of mountinfo.
type mount struct {
	major, minor uint32
	fstype       string
	root, point  string
}

// findMount finds the mount in the text of a mountinfo that is says yes to.
func findMount(text []byte, is func(id string, m mount) bool) (mount, bool) {
	for line := range strings.Lines(string(text)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 1 {
			continue
		}
		major, minor, _ := strings.Cut(l[2], ":")
		ma, err1 := strconv.ParseUint(major, 10, 32)
		mi, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		m := mount{uint32(ma), uint32(mi), r[0], l[3], l[4]}
		if is(l[0], m) {
			return m, true
		}
	}
	return mount{}, false
}

// parseFDInfo reads the mount's id and the inode's number of
// /proc/self/fdinfo/N; the number is 0 before Linux 5.14.
func parseFDInfo(text []byte) (mountID string, inode uint64) {
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "mnt_id":
			mountID = value
		case "ino":
			// What does not parse is 0, which is no inode's number.
			inode, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return mountID, inode
}
