//! temp
use kernel::linux::Linux; use kernel::netns; use model::{address::Addresses,datapath::*,key::*,plan::*,record::*};
use std::os::fd::{AsFd as _, AsRawFd as _}; use std::time::Instant;
fn main(){
 if std::env::args().nth(1).as_deref()==Some("rootless") { netns::become_root_in_new_user_namespace().unwrap(); go(50); return; }
 let n = netns::create().unwrap(); netns::within(n.as_fd(), || go(1000)).unwrap();
}
fn go(count: u32){
 let linux=Linux::open(8).unwrap();
 linux.publish(&model::ruleset::Ruleset{group:8,masquerade:true}).unwrap();
 let nss: Vec<_> = (0..count).map(|_| netns::create().unwrap()).collect();
 let mut t=vec![]; let mut targets=vec![];
 for (n,ns) in (0u32..).zip(&nss) {
  let p=format!("/proc/{}/fd/{}",std::process::id(),ns.as_raw_fd());
  let s=Instant::now();
  let (fd,id)=linux.open(&p).unwrap();
  let record=Record{key:Key::new(Owner::default(),WorkloadId::new(&format!("w{n}")).unwrap(),InterfaceName::new("eth0").unwrap()).unwrap(),
   addresses:Addresses::new(Some((0x0a4d0005u32+n).into()),Some(format!("fd77::{:x}",5+n).parse().unwrap())).unwrap(),namespace:id,path:PathDigest::of("x"),asked:Asked::default()};
  let plan=Plan::new(record,&PlanSettings{group:8,mtu:1400},100000+n);
  let index=linux.wire(&fd,&plan).unwrap(); t.push(s.elapsed());
  targets.push(Target{link:plan.link.host,index,group:8});
 }
 let h=t.len(); let mut a=t[..h/10.max(1)].to_vec(); a.sort(); let mut b=t[h-h/10..].to_vec(); b.sort();
 println!("attach first tenth p50 {:?} p99 {:?}, last tenth p50 {:?}",a[a.len()/2],a[a.len()-1],b[b.len()/2]);
 for _ in 0..3 { let s=Instant::now(); let f=linux.survey().unwrap(); println!("survey of {} {:?}",f.links.len(),s.elapsed()); }
 let s=Instant::now(); for t in targets.iter().take(50){ linux.find(&t.link).unwrap().unwrap(); } println!("find {:?}",s.elapsed()/50);
 let s=Instant::now(); linux.uplink().unwrap(); println!("uplink {:?}",s.elapsed());
 let s=Instant::now(); println!("drift {:?} {:?}",linux.drift(&model::ruleset::Ruleset{group:8,masquerade:true}).unwrap(),s.elapsed());
 let s=Instant::now(); for c in targets.chunks(16){ assert!(linux.unwire(c).iter().all(Result::is_ok)); } println!("unwire by 16, each {:?}",s.elapsed()/count);
}
