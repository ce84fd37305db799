package extjson

// seenNames finds duplicate keys of objects. It is one stack for all open objects.
type seenNames struct {
	keys [][]byte
	many map[int]map[string]struct{} // the keys of large objects, by frame
}

// few is the number of keys up to which comparing all of them is faster than hashing.
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

// close removes the keys of the object opened at frame.
func (k *seenNames) close(frame int) {
	k.keys = k.keys[:frame]
	delete(k.many, frame)
}
