package caller

import (
	"os/user"
	"strconv"
	"sync"
	"time"
)

// nameFresh is how long a looked-up name counts. Looking one up reads the
// user database whole.
const nameFresh = time.Second

const maxNames = 1024

// names remembers the names of users and groups.
type names struct {
	mu            sync.Mutex
	users, groups map[uint32]knownName
}

type knownName struct {
	name string // "" is none
	at   time.Time
}

// user returns the name of uid in the host's user database, "" if it has none
// or one that does not read as one word in a record.
func (n *names) user(uid uint32) string {
	return n.find(&n.users, uid, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

// group is the same for a group.
func (n *names) group(gid uint32) string {
	return n.find(&n.groups, gid, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

func (n *names) find(in *map[uint32]knownName, id uint32, look func(id string) (string, error)) string {
	now := time.Now()
	n.mu.Lock()
	k, ok := (*in)[id]
	n.mu.Unlock()
	if ok && now.Sub(k.at) < nameFresh {
		return k.name
	}
	name, err := look(strconv.FormatUint(uint64(id), 10))
	if err != nil || !plain(name) {
		name = "" // without a name, the number still says who it is
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if *in == nil || len(*in) >= maxNames {
		*in = map[uint32]knownName{}
	}
	(*in)[id] = knownName{name, now}
	return name
}
