package capture

import "encoding/binary"

// native32 and native16 keep bytes in the order that they have on the network.
func native32(b [4]byte) uint32 { return binary.NativeEndian.Uint32(b[:]) }

func native16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
