package caller

import "strings"

// unitTypes are the kinds of units that processes are in.
var unitTypes = []string{".service", ".scope", ".socket", ".mount", ".swap"}

// unit returns the unit of the host's init that a cgroup belongs to, "" if it
// belongs to none: the first part below init's slices. All below that is in the hands of
// whoever runs there. A unit of a user's manager is one of the user's
// making: its cgroup is user@1000.service's.
func unit(cgroup string) string {
	if !strings.HasPrefix(cgroup, "/") {
		return ""
	}
	above := ""
	for part := range strings.SplitSeq(cgroup[1:], "/") {
		part = strings.TrimPrefix(part, "_") // systemd's escape for names that cgroups have a use for
		name, slice := strings.CutSuffix(part, ".slice")
		if !slice {
			if validUnit(part) {
				return part
			}
			return ""
		}
		// A slice is named after the one that it is in; another was not made by init.
		if name == "" || !strings.HasPrefix(name, above) {
			return ""
		}
		above = name + "-"
	}
	return ""
}

func validUnit(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
	if len(name) > 255 || strings.Trim(name, letters) != "" {
		return false
	}
	for _, t := range unitTypes {
		if prefix, ok := strings.CutSuffix(name, t); ok {
			// "getty@.service" is a template, which nothing runs in.
			return prefix != "" && prefix[0] != '@' && !strings.HasSuffix(prefix, "@")
		}
	}
	return false
}
