package capture
import ("testing";"errors";"github.com/cilium/ebpf")
func TestDbg(t *testing.T){
 s,_:=loadKernel()
 for _,m:=range s.Maps{m.Pinning=0}
 c,err:=ebpf.NewCollection(s)
 var ve *ebpf.VerifierError
 if errors.As(err,&ve){ n:=len(ve.Log); if n>60 {n=60}; for _,l:=range ve.Log[len(ve.Log)-n:]{t.Log(l)} ; return}
 if err!=nil {t.Fatal(err)}
 c.Close()
}
