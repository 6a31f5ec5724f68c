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

// Waiting returns how many bytes of the journal are on disk and not shipped,
// and how many there may be.
func (j *Journal) Waiting() (bytes, limit int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size(), j.max
}
