package extjson

// seenNames finds keys that an object has twice. It is one stack for all objects
// that are open.
type seenNames struct {
	keys [][]byte
	many map[int]map[string]struct{} // by frame, of large objects
}

// few is up to how many keys comparing them all is faster than hashing.
const few = 24

func (k *seenNames) reset()    { k.keys = k.keys[:0] }
func (k *seenNames) open() int { return len(k.keys) }

// add reports whether key is new in the object opened at frame.
func (k *seenNames) add(frame int, key []byte) bool {
	n := len(k.keys) - frame
	if n < few {
		for _, other := range k.keys[frame:] {
			if string(other) == string(key) {
				return false
			}
		}
	} else {
		seen := k.many[frame]
		if seen == nil {
			if k.many == nil {
				k.many = map[int]map[string]struct{}{}
			}
			seen = make(map[string]struct{}, 4*few)
			k.many[frame] = seen
			for _, other := range k.keys[frame:] {
				seen[string(other)] = struct{}{}
			}
		}
		if _, there := seen[string(key)]; there {
			return false
		}
		seen[string(key)] = struct{}{}
	}
	k.keys = append(k.keys, key)
	return true
}

// close forgets the keys of the object opened at frame.
func (k *seenNames) close(frame int) {
	k.keys = k.keys[:frame]
	delete(k.many, frame)
}
