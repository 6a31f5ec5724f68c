package tokens

// Source says where an answer came from.
type Source string

// Sources.
const (
	// Hit: from memory, known to be what the control plane would say.
	Hit Source = "hit"
	// Miss: from the control plane.
	Miss Source = "miss"
	// Stale: from memory, while the control plane could not be asked.
	Stale Source = "stale"
)

// from tells who asks where the answer came from, if they want to know.
func (r Request) from(s Source) {
	if r.From != nil {
		*r.From = s
	}
}

// Waiting returns how many bytes of the journal are on disk and not shipped,
// and how many there may be.
func (j *Journal) Waiting() (bytes, limit int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size(), j.max
}
